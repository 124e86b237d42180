"""The statistics of all label rows that a report shows, and a sample of rows, in bounded memory."""

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
from lib.report.doubts import Doubts
from lib.scoring.schema import NO_FACE, OK
from lib.tasks import TASKS
from lib.tasks.age import AGE
from lib.tasks.gender import GENDER
from lib.tasks.task import numbers

BATCH_ROWS = 1 << 16
MOST_FACES = 10
"""The last bin of faces per image: this number and more."""
SCORE_BINS = 50
SEED = 0x5EED

_FACE = "faces.list.element"
_FACE_COLUMNS = (*(column.name for task in TASKS.values() for column in task.columns), "face_score")
COLUMNS = ("id", "status", "face_count")

Counts = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Place:
    """The place of a sampled row.

    Attributes:
        key: hash of the id; the sample holds the rows with the smallest keys.
        id: of the image.
        file: of labels.
        row: in that file.
    """

    key: int
    id: int
    file: LabelFile = field(compare=False)
    row: int = field(compare=False)


class Sample:
    """The rows whose hashed ids are the smallest, so the sample does not depend on the files."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.places: list[Place] = []
        """The sampled rows, by key: the first n of them are a sample, too."""

    def add(self, file: LabelFile, first_row: int, ids: NDArray[np.int64], mask: NDArray) -> None:
        """Offer the rows of a batch.

        Args:
            file: of the batch.
            first_row: of the batch, in the file.
            ids: (n,) of the images.
            mask: (n,) bool, the rows to offer.
        """
        rows = np.flatnonzero(mask)
        keys = _hash(ids[rows])
        smallest = np.argsort(keys)[: self._size]
        new = [
            Place(int(keys[n]), int(ids[rows[n]]), file, first_row + int(rows[n])) for n in smallest
        ]
        self.places = heapq.nsmallest(self._size, [*self.places, *new])


class LabelStatistics:
    """Statistics of all label rows.

    Attributes:
        statuses: images by status.
        faces: number of faces.
        faces_per_image: (11,) images with 0 to 9 faces, or 10 and more; of those that could be read.
        ages: (2, 101) faces by gender, female first, and age in whole years.
        age_and_std: (101, 61) faces by age, to the nearest year, and its standard deviation in
            steps of `lib.tasks.age.STD_STEP`.
        certainties: of each task (bins,) faces by how sure the label is; see `Task.histogram`.
        face_scores: (50,) faces by the detector's confidence, from 0 to 1; all 0 without a detector.
        doubtful: faces by kind of doubt, of `Doubts.of_faces`; without those of which nothing is known.
    """

    def __init__(self, sample_sizes: Mapping[str, int], doubts: Doubts) -> None:
        """Start without rows.

        Args:
            sample_sizes: number of rows to sample, by status.
            doubts: of the output.
        """
        self._doubts = doubts
        self.doubtful: dict[str, int] = {}
        self.statuses: Counter[str] = Counter()
        self.faces_per_image = np.zeros(MOST_FACES + 1, np.int64)
        bins = {name: len(task.histogram.edges) - 1 for name, task in TASKS.items()}
        self.ages = np.zeros((GENDER.classes, AGE.classes), np.int64)
        self.age_and_std = np.zeros((AGE.classes, bins[AGE.name]), np.int64)
        self.certainties = {name: np.zeros(count, np.int64) for name, count in bins.items()}
        self.face_scores = np.zeros(SCORE_BINS, np.int64)
        self.faces = 0
        self._samples = {status: Sample(size) for status, size in sample_sizes.items()}

    @property
    def images(self) -> int:
        """Number of rows."""
        return self.statuses.total()

    def sample(self, status: str) -> list[Place]:
        """Rows of a status; the first n of them are a sample, too."""
        return self._samples[status].places

    def add_file(self, file: LabelFile, rows: pq.ParquetFile) -> None:
        """Count the rows of a file."""
        first_row = 0
        of_faces = [f"{_FACE}.{name}" for name in (*_FACE_COLUMNS, *self._doubts.columns)]
        for batch in rows.iter_batches(BATCH_ROWS, columns=[*COLUMNS, *of_faces]):
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
        self.faces += len(faces)
        age = AGE.class_of(faces)
        _count(self.ages, GENDER.class_of(faces), age)
        _count(self.age_and_std, np.rint(age), AGE.certainty_bin(faces))
        for name, task in TASKS.items():
            _count(self.certainties[name], task.certainty_bin(faces))
        for kind, doubt in self._doubts.of_faces(faces).items():
            if (~np.isnan(doubt)).any():
                self.doubtful[kind] = self.doubtful.get(kind, 0) + int(np.nansum(doubt))
        _count(self.face_scores, numbers(faces.field("face_score")) * SCORE_BINS)


def label_statistics(output: Output, sample_sizes: Mapping[str, int]) -> LabelStatistics:
    """Count all label rows of an output.

    Args:
        output: of a labelling, finished or not.
        sample_sizes: number of rows to sample, by status.

    Raises:
        UserError: a file is not readable Parquet.
    """
    statistics = LabelStatistics(sample_sizes, Doubts.of(output))
    for file in output.label_files():
        with output.open(file) as rows:
            statistics.add_file(file, rows)
    return statistics


def _count(histogram: Counts, *values: NDArray[np.float64]) -> None:
    """Add values to a histogram with bins of width 1 from 0; the last bin includes larger values.

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
    """Hash ids to 64 bits (SplitMix64, Steele, Lea and Flood 2014)."""
    z = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
