from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib.commits import committed, roll_back, write_remaining


def write(file: Path, ids: list[int]) -> None:
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": pa.array(ids, pa.int64())}), file)


def test_what_was_not_committed_is_done_again(tmp_path: Path) -> None:
    labels, checkpoint, manifest = (tmp_path / n for n in ("labels", "checkpoint", "manifest"))
    write(manifest / "part-0.parquet", [0, 1, 2, 3])
    write(manifest / "part-1.parquet", [4, 5])
    write(checkpoint / "a_1.parquet", [4, 0])
    write(labels / "a_1-0.parquet", [4, 0])
    write(checkpoint / "a_2.pending.parquet", [1])  # killed before the commit
    write(labels / "a_2-0.parquet", [1])
    write(checkpoint / "a_3.pending.parquet", [2])  # killed before the rows
    roll_back(labels, checkpoint)
    assert [path.name for path in labels.iterdir()] == ["a_1-0.parquet"]
    assert [path.name for path in checkpoint.iterdir()] == ["a_1.parquet"]
    done = committed(checkpoint, 6)
    np.testing.assert_array_equal(done, [True, False, False, False, True, False])
    remaining = tmp_path / "remaining.parquet"
    assert write_remaining(manifest, done, remaining) == 4
    assert pq.read_table(remaining)["id"].to_pylist() == [1, 2, 3, 5]


def test_a_first_start_has_nothing_done(tmp_path: Path) -> None:
    write(tmp_path / "manifest" / "part-0.parquet", [0, 1, 2])
    roll_back(tmp_path / "labels", tmp_path / "checkpoint")
    done = committed(tmp_path / "checkpoint", 3)
    assert not done.any()
    assert write_remaining(tmp_path / "manifest", done, tmp_path / "remaining.parquet") == 3
