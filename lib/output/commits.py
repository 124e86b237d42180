"""Commits of label rows that survive a kill at any moment.

An image is done when a file of `labels/` has its row. Workers write each file in one step; compaction
needs care.

Compaction merges small files into one of `compaction/`, and then writes its name and sources into
`compaction/plan.json`, which commits the merged file: the sources are deleted and it is moved to
`labels/`, in this run or in the next.
"""

import json
import logging
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.archive.manifest import Manifest
from lib.common.errors import UserError
from lib.storage.folder import Folder

COMPACT_BYTES = 128 << 20
"""Size of merged files; files of at least half of it are not merged."""
READS_AT_A_TIME = 8

_PLAN = "plan.json"

log = logging.getLogger("score")


def recover(output: Folder) -> None:
    """Undo or finish the compaction of a killed run: afterwards every file of `labels/` counts.

    Raises:
        UserError: an earlier version was killed while it wrote; only that one knows which files count.
    """
    if (output / "checkpoint").files(".pending.parquet"):
        raise UserError(
            f"{str(output)!r} was left unfinished by an earlier version; finish it with that version, "
            "or give another --output"
        )
    folder = output / "compaction"
    try:
        plan = json.loads(folder.read(_PLAN))
    except FileNotFoundError:
        plan = None
    if plan:
        labels = output / "labels"
        if folder.holds(plan["merged"]):
            for name in plan["sources"]:
                labels.delete(name)
            folder.move(plan["merged"], labels)
        folder.delete(_PLAN)
    folder.delete_all()


def committed(labels: Folder, next_id: int) -> NDArray[np.bool_]:
    """Which of the ids 0 to `next_id` - 1 have their row, (next_id,); after `recover`."""
    done = np.zeros(next_id, np.bool_)
    for _, rows in _tables(labels, labels.files(), ["id"]):
        done[rows["id"].to_numpy()] = True
    return done


def ids_with_status(labels: Folder, statuses: Iterable[str]) -> NDArray[np.int64]:
    """Ids of the rows that have one of these statuses."""
    wanted = pa.array(list(statuses), pa.string())
    found = [
        rows["id"].to_numpy()[pc.is_in(rows["status"], wanted).to_numpy()]
        for _, rows in _tables(labels, labels.files(), ["id", "status"])
    ]
    return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)


def forget(labels: Folder, ids: NDArray[np.int64]) -> int:
    """Delete the rows of these images, which makes them not done. Gives the number of rows.

    Each file is replaced atomically. After a kill, the rows of some images are deleted and some are not.
    """
    if not len(ids):
        return 0
    dropped = 0
    for name, rows in _tables(labels, labels.files(), ["id"]):
        gone = np.isin(rows["id"].to_numpy(), ids)
        if not gone.any():
            continue
        dropped += int(gone.sum())
        if gone.all():
            labels.delete(name)
        else:
            labels.write_table(name, labels.read_table(name).filter(pa.array(~gone)))
    return dropped


def write_remaining(
    manifest: Manifest,
    folder: Folder,
    done: NDArray[np.bool_],
    target: Folder,
    group_rows: int,
) -> int:
    """Copy the rows of the manifest that are not done, one file for each of its files.

    Args:
        manifest: of the archive.
        folder: its files.
        done: by id, (next_id,).
        target: for the copies.
        group_rows: rows of a row group.

    Returns:
        The number of rows.
    """
    target.delete_all()
    count = 0
    for part in manifest.parts:
        rows = folder.read_table(part)
        rows = rows.filter(pa.array(~done[rows["id"].to_numpy()]))
        if len(rows):
            target.write_table(part, rows, group_rows)
            count += len(rows)
    return count


def compact(output: Folder) -> int:
    """Merge small label files; the order of rows is not kept. Gives the number of files left."""
    labels = output / "labels"
    for names in _groups(labels.sizes()):
        merged = f"compact-{uuid.uuid4().hex}.parquet"
        with (output / "compaction").new_file(merged) as file:
            _merge(labels, names, file)
        plan = {"merged": merged, "sources": names}
        (output / "compaction").write(_PLAN, json.dumps(plan).encode())
        recover(output)
    return len(labels.files())


def _groups(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Small files, at least two together, of about `COMPACT_BYTES`."""
    group: list[str] = []
    together = 0
    for name, size in sizes.items():
        if size >= COMPACT_BYTES // 2:
            continue
        group.append(name)
        together += size
        if together >= COMPACT_BYTES:
            yield group
            group, together = [], 0
    if len(group) > 1:
        yield group


def _merge(labels: Folder, names: list[str], file: pa.NativeFile) -> None:
    writer = None
    waiting: list[pa.Table] = []
    for number, (_, rows) in enumerate(_tables(labels, names, None), 1):
        writer = writer or pq.ParquetWriter(file, rows.schema)
        waiting.append(rows)
        if sum(map(len, waiting)) >= 10_000 or number == len(names):
            # Rows are small: groups of ten thousand are read efficiently.
            writer.write_table(pa.concat_tables(waiting))
            waiting = []
    if writer is not None:
        writer.close()


def _tables(
    folder: Folder, names: list[str], columns: list[str] | None
) -> Iterator[tuple[str, pa.Table]]:
    """Read files in order, a few of them ahead."""
    with ThreadPoolExecutor(READS_AT_A_TIME) as threads:
        for start in range(0, len(names), READS_AT_A_TIME):
            group = names[start : start + READS_AT_A_TIME]
            yield from zip(
                group, threads.map(lambda n: folder.read_table(n, columns), group), strict=True
            )
