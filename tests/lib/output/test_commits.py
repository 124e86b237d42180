import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.archive.manifest import Manifest
from lib.common.errors import UserError
from lib.output import commits
from lib.output.commits import committed, compact, forget, ids_with_status, recover, write_remaining
from lib.storage.folder import Folder, folder


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return folder(tmp_path / "out")


def write(output: Folder, name: str, ids: list[int], status: str = "ok") -> None:
    table = pa.table({"id": pa.array(ids, pa.int64()), "status": [status] * len(ids)})
    place, _, file = name.rpartition("/")
    (output / place).write_table(file, table)


def all_ids(output: Folder) -> list[int]:
    return sorted(pq.read_table(output.uri + "/labels")["id"].to_pylist())


def test_what_was_not_committed_is_done_again(output: Folder) -> None:
    write(output, "manifest/part-0.parquet", [0, 1, 2, 3])
    write(output, "manifest/part-1.parquet", [4, 5])
    write(output, "manifest/part-2.parquet", [6])
    write(output, "labels/a-0.parquet", [4, 0])
    write(output, "labels/a-6.parquet", [6])
    recover(output)
    labels = output / "labels"
    done = committed(labels, 7)
    assert done.tolist() == [True, False, False, False, True, False, True]
    manifest = Manifest(7, 0, {}, "", tuple(f"part-{n}.parquet" for n in range(3)), 7)
    remaining = output / "remaining"
    assert write_remaining(manifest, output / "manifest", done, remaining, group_rows=2) == 4
    assert [remaining.read_table(n)["id"].to_pylist() for n in remaining.files()] == [
        [1, 2, 3],
        [5],
    ]


def test_what_an_earlier_version_left_unfinished_is_refused(output: Folder) -> None:
    write(output, "checkpoint/a_2.pending.parquet", [1])
    with pytest.raises(UserError, match="left unfinished by an earlier version"):
        recover(output)


def test_a_first_start_has_nothing_done(output: Folder) -> None:
    recover(output)
    assert not committed(output / "labels", 3).any()


def test_rows_are_forgotten(output: Folder) -> None:
    write(output, "labels/a.parquet", [0, 1, 2])
    write(output, "labels/b.parquet", [3, 4], "not_found")
    write(output, "labels/c.parquet", [5, 6], "download_error")
    labels = output / "labels"
    ids = ids_with_status(labels, ["not_found", "download_error"])
    assert ids.tolist() == [3, 4, 5, 6]
    assert forget(labels, np.array([1, 3, 4])) == 3
    assert labels.files() == ["a.parquet", "c.parquet"]
    assert all_ids(output) == [0, 2, 5, 6]
    assert forget(labels, np.array([], np.int64)) == 0


def test_small_files_are_merged(output: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        write(output, f"labels/{number:02}.parquet", [2 * number, 2 * number + 1])
    size = next(iter((output / "labels").sizes().values()))
    monkeypatch.setattr(commits, "COMPACT_BYTES", 5 * size)
    left = compact(output)
    assert left <= 20 // 5
    assert all_ids(output) == list(range(40))
    assert not output.holds("compaction")


@pytest.mark.parametrize("done", range(6))
def test_compaction_goes_on_wherever_it_was_killed(
    output: Folder, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each change that it makes to the files."""
    for number in range(3):
        write(output, f"labels/{number}.parquet", [number])
    left = done

    def dying(name: str) -> None:
        original = getattr(Folder, name)

        def change(*arguments: object) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            original(*arguments)

        monkeypatch.setattr(Folder, name, change)

    for name in ("write", "delete", "move"):
        dying(name)
    with pytest.raises(KeyboardInterrupt):
        compact(output)
    monkeypatch.undo()
    plan = output.holds("compaction/plan.json")
    assert plan == (done > 0)
    recover(output)
    assert all_ids(output) == [0, 1, 2]
    assert len((output / "labels").files()) == (1 if plan else 3)
    assert not output.holds("compaction")


def test_a_plan_that_is_finished_is_only_cleared_up(output: Folder) -> None:
    write(output, "labels/compact-1.parquet", [0, 1])
    plan = {"merged": "compact-1.parquet", "sources": ["0.parquet"]}
    (output / "compaction").write("plan.json", json.dumps(plan).encode())
    recover(output)
    assert all_ids(output) == [0, 1]
