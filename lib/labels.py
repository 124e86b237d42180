"""A folder of label files: what is in it, counted from the files alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


class LabelCounts:
    """Counts by status over a folder that grows; each file is read once.

    Only the column `status` is read. A file that cannot be read is still being written, and is looked
    at again the next time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts: dict[str, Counter[str]] = {}

    def update(self) -> Counter[str]:
        """Look for new files and give the counts of all."""
        present = {path.name: path for path in self._folder.glob("*.parquet")}
        for name in self._counts.keys() - present.keys():
            del self._counts[name]
        for name in present.keys() - self._counts.keys():
            try:
                statuses = pq.read_table(present[name], columns=["status"])["status"]
            except (pa.ArrowInvalid, OSError):
                continue
            pairs = statuses.value_counts().to_pylist()
            self._counts[name] = Counter({p["values"]: p["counts"] for p in pairs})
        return sum(self._counts.values(), Counter())


def rows_missing_and_repeated(folder: Path, images: int) -> tuple[int, int]:
    """Compare the ids in a folder of labels with those of its manifest, 0 to `images` - 1.

    Returns:
        How many images have no row, and how many rows are too many.

    Raises:
        OSError: a file is not readable Parquet.
    """
    times = np.zeros(images, np.int32)
    foreign = 0
    for path in folder.glob("*.parquet"):
        ids = pq.read_table(path, columns=["id"])["id"].to_numpy()
        known = (ids >= 0) & (ids < images)
        foreign += int((~known).sum())
        times += np.bincount(ids[known], minlength=images).astype(np.int32)
    return int((times == 0).sum()), int((times - 1).clip(0).sum()) + foreign


def count_faces(folder: Path) -> int:
    """Faces of all images in a folder of labels."""
    return sum(
        pc.sum(pq.read_table(path, columns=["face_count"])["face_count"]).as_py() or 0
        for path in folder.glob("*.parquet")
    )
