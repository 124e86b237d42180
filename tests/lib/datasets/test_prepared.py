from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lib.datasets import prepared
from lib.datasets.cleaning import CLEANED
from lib.datasets.ingest import IMAGE_FACTS, SHARD_SCHEMA
from lib.datasets.labelled_faces import FACE_SCHEMA
from lib.datasets.labels import SPLITS
from lib.datasets.prepared import (
    DROPPED_SCHEMA,
    IntermediateShards,
    rows_not_once,
    write_dropped,
    write_faces,
)

ROWS = 5000
GROUP = 50
DROPPED_EVERY, TEST_EVERY = 10, 3


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four intermediate shards with the images of all rows; the last one repeats some."""
    rows = np.arange(ROWS)
    files = []
    for number, part in enumerate([*np.array_split(rows, 3), rows[:20]]):
        again = number == 3
        table = pa.Table.from_pylist(
            [
                {
                    "source_row": int(row),
                    "sha256": f"{row}",
                    "image": b"again" if again else _image(row),
                }
                for row in part
            ],
            schema=SHARD_SCHEMA,
        )
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(table, files[-1], row_group_size=GROUP)
    return files


def _image(row: int) -> bytes:
    return b"%d " % row * 20


def _cleaned() -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "path": f"{row}.jpg",
                "source_row": row,
                "age": row % 90,
                "sha256": f"{row}",
                "rule": "too_small" if row % DROPPED_EVERY == 0 else None,
                "detail": "width 9" if row % DROPPED_EVERY == 0 else None,
                "split": None
                if row % DROPPED_EVERY == 0
                else "test"
                if row % TEST_EVERY == 0
                else "train",
            }
            for row in range(ROWS)
        ],
        schema=CLEANED,
    )


def test_shards_find_the_first_image_of_a_row(files: list[Path]) -> None:
    shards = IntermediateShards(files)
    places = shards.places(ROWS + 1)
    assert places.tolist() == [*range(ROWS), -1]
    facts = shards.facts(places)
    assert facts.schema == IMAGE_FACTS
    assert facts["source_row"].to_pylist() == [*range(ROWS), None]
    assert len(shards) == ROWS + 20


def test_faces_and_dropped(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "FILE_BYTES", 100_000)
    shards, cleaned = IntermediateShards(files), _cleaned()
    write_faces(tmp_path / "faces", shards, shards.places(ROWS), cleaned)
    write_dropped(tmp_path / "dropped", cleaned)
    assert rows_not_once([tmp_path / "faces", tmp_path / "dropped"], ROWS) == 0
    assert rows_not_once([tmp_path / "faces", tmp_path / "dropped"], ROWS + 2) == 2
    assert rows_not_once([tmp_path / "faces"], ROWS) == ROWS // DROPPED_EVERY
    for split in SPLITS:
        written = sorted((tmp_path / "faces" / f"split={split}").glob("*.parquet"))
        table = pa.concat_tables(pq.ParquetFile(file).read() for file in written)
        assert table.schema == FACE_SCHEMA
        rows = table["source_row"].to_pylist()
        expected = cleaned.filter(pc.equal(cleaned["split"], split))
        assert sorted(rows) == expected["source_row"].to_pylist()
        assert table["image"].to_pylist() == [_image(row) for row in rows]
        assert table["age"].to_pylist() == [row % 90 for row in rows]
    dropped = pq.ParquetFile(tmp_path / "dropped" / "part-00000.parquet").read()
    assert dropped.schema == DROPPED_SCHEMA
    assert dropped["path"].to_pylist() == [f"{row}.jpg" for row in range(0, ROWS, DROPPED_EVERY)]


def test_files_are_even_and_rows_are_shuffled(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "FILE_BYTES", 100_000)
    shards = IntermediateShards(files)
    for name in ("faces", "again"):
        write_faces(tmp_path / name, shards, shards.places(ROWS), _cleaned())
    *full, last = sorted((tmp_path / "faces" / "split=train").glob("*.parquet"))
    assert len(full) >= 2
    assert all(100_000 <= file.stat().st_size < 200_000 for file in full)
    rows = pq.ParquetFile(full[0]).read_row_group(0)["source_row"].to_numpy()
    assert prepared.GROUP_ROWS <= len(rows) < prepared.GROUP_ROWS + GROUP
    # From all over the data set, and neighbours not beside each other.
    assert len(np.unique(rows // GROUP)) >= prepared.GROUP_ROWS / GROUP
    assert np.mean(np.abs(np.diff(rows)) < GROUP) < 0.2
    for file in (*full, last):
        assert (
            file.read_bytes()
            == (tmp_path / "again" / file.relative_to(tmp_path / "faces")).read_bytes()
        )


def test_a_split_without_faces_has_an_empty_file(files: list[Path], tmp_path: Path) -> None:
    shards = IntermediateShards(files)
    write_faces(tmp_path / "faces", shards, shards.places(ROWS), _cleaned())
    (file,) = (tmp_path / "faces" / "split=val").iterdir()
    assert pq.ParquetFile(file).read() == FACE_SCHEMA.empty_table()


def test_no_shards_at_all(tmp_path: Path) -> None:
    shards = IntermediateShards([])
    assert shards.places(3).tolist() == [-1] * 3
    assert shards.facts(shards.places(3))["source_row"].null_count == 3
