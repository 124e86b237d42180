"""Label rows → the counts that a report shows, and a sample of rows; one pass, in bounded memory."""

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.output.reader import LabelFile, Output
from lib.scoring.schema import NO_FACE, OK
from lib.tasks import TASKS
from lib.tasks.age import AGE
from lib.tasks.gender import GENDER
from lib.tasks.task import numbers

BATCH_ROWS = 1 << 16
MOST_FACES = 10
"""Images with as many faces, or more, are counted together."""
SCORE_BINS = 50
SEED = 0x5EED

_FACE = "faces.list.element"
_FACE_COLUMNS = (*(column.name for task in TASKS.values() for column in task.columns), "face_score")
COLUMNS = ["id", "status", "face_count", *(f"{_FACE}.{name}" for name in _FACE_COLUMNS)]

Counts = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Place:
    """Where a sampled row is.

    Attributes:
        key: the sample holds the rows of the smallest keys; what a row's is, its id says.
        id: of the image.
        file: of labels.
        row: in that file.
    """

    key: int
    id: int
    file: LabelFile = field(compare=False)
    row: int = field(compare=False)


class Sample:
    """The rows whose hashed ids are the smallest: the same ones however the rows lie in files."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._largest_first: list[tuple[int, int, Place]] = []

    def add(self, file: LabelFile, first_row: int, ids: NDArray[np.int64], mask: NDArray) -> None:
        """Offer the rows of a batch.

        Args:
            file: that the batch is from.
            first_row: of the batch, in the file.
            ids: (n,) of the images.
            mask: (n,) bool, which of them are meant.
        """
        keys = _hash(ids)
        chosen = np.flatnonzero(mask)
        chosen = chosen[np.argsort(keys[chosen])][: self._size]
        for number in chosen:
            key, id_ = int(keys[number]), int(ids[number])
            entry = (-key, -id_, Place(key, id_, file, first_row + int(number)))
            if len(self._largest_first) < self._size:
                heapq.heappush(self._largest_first, entry)
            elif entry > self._largest_first[0]:
                heapq.heapreplace(self._largest_first, entry)

    def places(self) -> list[Place]:
        """The chosen rows, by key: the first n of them are a sample, too."""
        return sorted(place for _, _, place in self._largest_first)


class LabelStatistics:
    """Counts over all label rows.

    Attributes:
        statuses: images by status.
        faces_per_image: (11,) images with 0 to 9 faces, or 10 and more; of those that could be read.
        ages: (2, 101) faces by gender, female first, and age in whole years.
        age_and_std: (101, 61) faces by age, to the nearest year, and its standard deviation in
            steps of `lib.tasks.age.STD_STEP`.
        certainties: of each task (bins,) faces by how sure the label is; see `Task.histogram`.
        face_scores: (50,) faces by the detector's confidence, from 0 to 1; all 0 without a detector.
    """

    def __init__(self, sample_sizes: Mapping[str, int]) -> None:
        """Start with nothing.

        Args:
            sample_sizes: how many rows of each status to remember.
        """
        self.statuses: Counter[str] = Counter()
        self.faces_per_image = np.zeros(MOST_FACES + 1, np.int64)
        bins = {name: len(task.histogram.edges) - 1 for name, task in TASKS.items()}
        self.ages = np.zeros((GENDER.classes, AGE.classes), np.int64)
        self.age_and_std = np.zeros((AGE.classes, bins[AGE.name]), np.int64)
        self.certainties = {name: np.zeros(count, np.int64) for name, count in bins.items()}
        self.face_scores = np.zeros(SCORE_BINS, np.int64)
        self._faces = 0
        self._samples = {status: Sample(size) for status, size in sample_sizes.items()}

    @property
    def images(self) -> int:
        """How many rows there are."""
        return self.statuses.total()

    @property
    def faces(self) -> int:
        """How many faces there are."""
        return self._faces

    def sample(self, status: str) -> list[Place]:
        """Rows of a status; the first n of them are a sample, too."""
        return self._samples[status].places()

    def add_file(self, file: LabelFile, rows: pq.ParquetFile) -> None:
        """Count the rows of a file."""
        first_row = 0
        for batch in rows.iter_batches(BATCH_ROWS, columns=COLUMNS):
            self._add_images(file, first_row, batch)
            self._add_faces(batch["faces"].flatten())
            first_row += len(batch)

    def _add_images(self, file: LabelFile, first_row: int, batch: pa.RecordBatch) -> None:
        statuses = batch["status"]
        for pair in pc.value_counts(statuses).to_pylist():
            status = pair["values"]
            self.statuses[status] += pair["counts"]
            if status in self._samples:
                mask = pc.equal(statuses, status).to_numpy(zero_copy_only=False)
                self._samples[status].add(file, first_row, batch["id"].to_numpy(), mask)
        readable = pc.is_in(statuses, pa.array([OK, NO_FACE]))
        _count(self.faces_per_image, numbers(batch["face_count"].filter(readable)))

    def _add_faces(self, faces: pa.StructArray) -> None:
        self._faces += len(faces)
        age = AGE.class_of(faces)
        _count(self.ages, GENDER.class_of(faces), age)
        _count(self.age_and_std, np.rint(age), AGE.certainty_bin(faces))
        for name, task in TASKS.items():
            _count(self.certainties[name], task.certainty_bin(faces))
        _count(self.face_scores, numbers(faces.field("face_score")) * SCORE_BINS)


def count_labels(output: Output, sample_sizes: Mapping[str, int]) -> LabelStatistics:
    """Count all label rows of an output.

    Args:
        output: of a labelling, finished or not.
        sample_sizes: how many rows of each status to remember.

    Raises:
        UserError: a file is not readable Parquet.
    """
    counts = LabelStatistics(sample_sizes)
    for file in output.label_files():
        with output.open(file) as rows:
            counts.add_file(file, rows)
    return counts


def _count(histogram: Counts, *values: NDArray[np.float64]) -> None:
    """Add values to a histogram of bins of width 1 from 0; the last bin takes what is above, too.

    Args:
        histogram: of as many axes as there are `values`.
        values: (n,) each; an entry of which one is NaN is not counted.
    """
    known = ~np.isnan(values).any(axis=0)
    bins = [
        np.clip(value[known], 0, size - 1).astype(np.int64)
        for value, size in zip(values, histogram.shape, strict=True)
    ]
    flat = np.ravel_multi_index(bins, histogram.shape)
    histogram += np.bincount(flat, minlength=histogram.size).reshape(histogram.shape)


def _hash(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Spread ids over 64 bits, the same way every time (SplitMix64, Steele, Lea and Flood 2014)."""
    z = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
