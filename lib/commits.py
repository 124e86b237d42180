"""Which rows of the manifest have been written for good, and which are left.

Ray Data writes every file of rows in two phases: first `checkpoint/NAME.pending.parquet` with the ids,
then the rows themselves into `labels/NAME-….parquet`, and last it renames the first to
`checkpoint/NAME.parquet`. Killed in between, the pending file tells which rows do not count.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

PENDING = ".pending.parquet"


def roll_back(labels: Path, checkpoint: Path) -> None:
    """Delete the label files that a killed run did not commit."""
    for pending in checkpoint.glob(f"*{PENDING}"):
        name = pending.name.removesuffix(PENDING)
        for part in labels.glob("*.parquet"):
            if part.name.startswith(name):
                part.unlink()
        pending.unlink()


def committed(checkpoint: Path, images: int) -> NDArray[np.bool_]:
    """Which of the ids 0 to `images` - 1 have been committed, (images,); after `roll_back`."""
    done = np.zeros(images, np.bool_)
    for part in checkpoint.glob("*.parquet"):
        done[pq.read_table(part, columns=["id"])["id"].to_numpy()] = True
    return done


def write_remaining(manifest: Path, done: NDArray[np.bool_], file: Path) -> int:
    """Copy the manifest's rows that are not done into one file, which is overwritten; their number."""
    with pq.ParquetWriter(file, pq.read_schema(next(manifest.glob("*.parquet")))) as writer:
        for part in sorted(manifest.glob("*.parquet")):
            rows = pq.read_table(part)
            writer.write_table(rows.filter(pa.array(~done[rows["id"].to_numpy()])))
    return int((~done).sum())
