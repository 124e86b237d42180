from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.output.counts import LabelCounts, count_faces, rows_missing_and_repeated


def write(folder: Path, name: str, ids: list[int], status: str = "ok", faces: int = 1) -> None:
    table = pa.table({"id": ids, "status": [status] * len(ids), "face_count": [faces] * len(ids)})
    pq.write_table(table, folder / f"{name}.parquet")


def test_counts_follow_the_folder(tmp_path: Path) -> None:
    counts = LabelCounts(tmp_path)
    assert counts.update() == {}
    write(tmp_path, "a", [0, 1])
    write(tmp_path, "b", [2], "no_face")
    assert counts.update() == {"ok": 2, "no_face": 1}
    (tmp_path / "b.parquet").unlink()  # as the engine does with what was not committed
    (tmp_path / "c.parquet").write_bytes(b"PAR1")  # as while it is written
    assert counts.update() == {"ok": 2}
    write(tmp_path, "c", [2], "decode_error")
    assert counts.update() == {"ok": 2, "decode_error": 1}


@pytest.mark.parametrize(
    ("files", "missing", "repeated"),
    [
        ([[0, 1], [2, 3]], 0, 0),
        ([[0, 1]], 2, 0),
        ([[0, 1], [1, 2, 3]], 0, 1),
        ([[0, 0, 0], [1, 2]], 1, 2),
        ([[0, 1, 2, 3, 4], [-1]], 0, 2),
        ([], 4, 0),
    ],
)
def test_rows_against_the_manifest(
    files: list[list[int]], missing: int, repeated: int, tmp_path: Path
) -> None:
    for number, ids in enumerate(files):
        write(tmp_path, str(number), ids)
    assert rows_missing_and_repeated(tmp_path, 4) == (missing, repeated)


def test_faces(tmp_path: Path) -> None:
    assert count_faces(tmp_path) == 0
    write(tmp_path, "a", [0, 1], faces=3)
    write(tmp_path, "b", [2], faces=0)
    assert count_faces(tmp_path) == 6
