"""A folder of label files: what is in it, counted from the files alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.storage import Folder
from lib.storage import folder as as_folder


class LabelCounts:
    """Counts by status over a folder that grows; each file is read once.

    Only the column `status` is read. A file that cannot be read is still being written, and is looked
    at again the next time.
    """

    def __init__(self, folder: Path | Folder) -> None:
        self._folder = as_folder(folder)
        self._counts: dict[str, Counter[str]] = {}

    def update(self) -> Counter[str]:
        """Look for new files and give the counts of all."""
        present = set(self._folder.files())
        for name in self._counts.keys() - present:
            del self._counts[name]
        for name in present - self._counts.keys():
            try:
                statuses = self._folder.read_table(name, ["status"])["status"]
            except (pa.ArrowInvalid, OSError):
                continue
            pairs = statuses.value_counts().to_pylist()
            self._counts[name] = Counter({p["values"]: p["counts"] for p in pairs})
        return sum(self._counts.values(), Counter())


def rows_missing_and_repeated(
    folder: Path | Folder, images: int | NDArray[np.bool_]
) -> tuple[int, int]:
    """Compare the ids in a folder of labels with those of its manifest.

    Args:
        folder: of labels.
        images: which numbers are ids, (n,); or n, if all numbers from 0 to n - 1 are.

    Returns:
        How many images have no row, and how many rows are too many.

    Raises:
        OSError: a file is not readable Parquet.
    """
    wanted = np.ones(images, np.bool_) if isinstance(images, int) else images
    labels = as_folder(folder)
    times = np.zeros(len(wanted), np.int32)
    foreign = 0
    for name in labels.files():
        ids = labels.read_table(name, ["id"])["id"].to_numpy()
        known = (ids >= 0) & (ids < len(wanted))
        foreign += int((~known).sum())
        times += np.bincount(ids[known], minlength=len(wanted)).astype(np.int32)
    foreign += int(times[~wanted].sum())
    times = times[wanted]
    return int((times == 0).sum()), int((times - 1).clip(0).sum()) + foreign


def count_faces(folder: Path | Folder) -> int:
    """Faces of all images in a folder of labels."""
    labels = as_folder(folder)
    return sum(
        pc.sum(labels.read_table(name, ["face_count"])["face_count"]).as_py() or 0
        for name in labels.files()
    )
