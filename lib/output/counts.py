"""Counts over a folder of label files."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.storage.folder import Folder
from lib.storage.folder import folder as as_folder

READS_AT_A_TIME = 16
"""Reads from a bucket mostly wait."""


class LabelCounts:
    """Counts by status over a growing folder. Only the column `status` of each file is read, once.

    A file that cannot be read is still being written, and is tried again at the next update.
    """

    def __init__(self, folder: Path | Folder) -> None:
        self._folder = as_folder(folder)
        self._counts: dict[str, Counter[str]] = {}

    def update(self) -> Counter[str]:
        """Count new files; gives the counts of all files, without new ones if the storage fails."""
        with suppress(OSError):
            present = set(self._folder.files())
            for name in self._counts.keys() - present:
                del self._counts[name]
            new = sorted(present - self._counts.keys())
            with ThreadPoolExecutor(READS_AT_A_TIME) as threads:
                for name, counts in zip(new, threads.map(self._count, new), strict=True):
                    if counts is not None:
                        self._counts[name] = counts
        return sum(self._counts.values(), Counter())

    def _count(self, name: str) -> Counter[str] | None:
        try:
            statuses = self._folder.read_table(name, ["status"])["status"]
        except (pa.ArrowInvalid, OSError):
            return None
        pairs = statuses.value_counts().to_pylist()
        return Counter({p["values"]: p["counts"] for p in pairs})


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
    times = np.zeros(len(wanted), np.uint8)  # small: there may be billions of images
    foreign = 0
    for name in labels.files():
        ids = labels.read_table(name, ["id"])["id"].to_numpy()
        known = (ids >= 0) & (ids < len(wanted))
        foreign += int((~known).sum())
        np.add.at(times, ids[known], np.uint8(1))
    foreign += int(times[~wanted].sum(dtype=np.int64))
    missing = int(np.count_nonzero(wanted & (times == 0)))
    repeated = int(times[wanted].sum(dtype=np.int64)) - (int(np.count_nonzero(wanted)) - missing)
    return missing, repeated + foreign


def count_faces(folder: Path | Folder) -> int:
    """Faces of all images in a folder of labels."""
    labels = as_folder(folder)
    return sum(
        pc.sum(labels.read_table(name, ["face_count"])["face_count"]).as_py() or 0
        for name in labels.files()
    )
