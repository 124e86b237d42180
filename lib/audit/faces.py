"""The faces that are audited: their places in one order, their labels, and their folds."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.datasets.labelled_faces import IMAGE_COLUMNS, LabelledFaces
from lib.datasets.labels import AGE_BAND, SPLITS, Split, split_key, with_age_band
from lib.scoring.rows import Block, Rows
from lib.scoring.stages.stage import with_column
from lib.storage.folder import Folder
from lib.tasks.gender import FEMALE, MALE

ROWS_AT_A_TIME = 4096
UNKNOWN = -1
"""In place of an age, or of a gender's number, that a face does not have."""
_GENDER_NUMBERS = {FEMALE: 1, MALE: 0}
_FOLD_SALT = "fold:"
"""Without it, folds would divide the splits, which are drawn from the same keys."""


@dataclass(frozen=True)
class FaceLabels:
    """The labels of n faces in their order: 6 bytes for each.

    Attributes:
        female: int8 (n,), 1 female, 0 male, `UNKNOWN`.
        age_low, age_high: int16 (n,), first and last whole year that the label allows, or `UNKNOWN`.
        folds: int8 (n,), of each face; all 0 where no fold was asked for.
        digest: of the key and the labels of all faces.
    """

    female: NDArray[np.int8]
    age_low: NDArray[np.int16]
    age_high: NDArray[np.int16]
    folds: NDArray[np.int8]
    digest: str

    def __len__(self) -> int:
        return len(self.female)


class _Group(NamedTuple):
    """A row group; its first row has the place `start`."""

    split: Split
    file: str
    number: int
    start: int
    rows: int


@dataclass(frozen=True)
class AuditedFaces:
    """The faces of all splits, one after the other: the place of a face is its number in that order.

    Attributes:
        folder: folder faces/ of jobs.prepare.
    """

    folder: Folder

    @cached_property
    def splits(self) -> tuple[LabelledFaces, ...]:
        """The splits that have files.

        Raises:
            UserError: none has.
        """
        splits = [LabelledFaces(self.folder, split) for split in SPLITS]
        if not (there := tuple(faces for faces in splits if faces.rows.files())):
            raise UserError(
                f"no faces in {str(self.folder)!r}; it should be the folder faces/ of jobs.prepare"
            )
        return there

    @cached_property
    def groups(self) -> tuple[_Group, ...]:
        """All row groups, in order."""
        groups: list[_Group] = []
        start = 0
        for faces in self.splits:
            for file in faces.files:
                with pq.ParquetFile(file, filesystem=self.folder.filesystem) as parquet:
                    for number in range(parquet.metadata.num_row_groups):
                        rows = parquet.metadata.row_group(number).num_rows
                        groups.append(_Group(faces.split, file, number, start, rows))
                        start += rows
        return tuple(groups)

    def __len__(self) -> int:
        return sum(group.rows for group in self.groups)

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[Split, pa.Table]]:
        """Read some columns of all faces, in order, few at a time, without those that no file has."""
        for faces in self.splits:
            with pq.ParquetFile(faces.files[0], filesystem=self.folder.filesystem) as parquet:
                there = [name for name in columns if name in parquet.schema_arrow.names]
            for rows in faces.batches(there, ROWS_AT_A_TIME):
                yield faces.split, rows

    def labels(self, folds: int = 1) -> FaceLabels:
        """Read the labels of all faces, and draw the folds.

        Faces of one person are in one fold, where the data set names people, else faces of one picture.

        Args:
            folds: how many; at most 127.

        Raises:
            UserError: columns are missing, or there are no faces.
        """
        columns = ("sha256", "age", "gender", "identity", *AGE_BAND.names)
        digest = hashlib.sha256()
        parts: list[tuple[NDArray[np.int16], ...]] = []
        for _, read in self.batches(columns):
            if missing := {"sha256", "age", "gender"} - set(read.column_names):
                raise UserError(f"the faces in {str(self.folder)!r} have no column {min(missing)}")
            rows = with_age_band(read)
            keys = rows["sha256"].to_pylist()
            genders = rows["gender"].to_pylist()
            low, high = (
                rows[name].fill_null(UNKNOWN).to_numpy().astype(np.int16) for name in AGE_BAND.names
            )
            people = rows["identity"].to_pylist() if "identity" in rows.column_names else None
            chosen = [
                fold_of(split_key(person, key), folds)
                for person, key in zip(people or [None] * len(keys), keys, strict=True)
            ]
            numbers = [_GENDER_NUMBERS.get(gender, UNKNOWN) for gender in genders]
            parts.append((np.array(numbers, np.int16), low, high, np.array(chosen, np.int16)))
            digest.update("\n".join([*keys, ""]).encode())
            digest.update(b"".join(part.tobytes() for part in parts[-1][:3]))
        if not sum(len(part[0]) for part in parts):
            raise UserError(f"there are no faces in {str(self.folder)!r}")
        female, low, high, of_fold = map(np.concatenate, zip(*parts, strict=True))
        return FaceLabels(
            female.astype(np.int8), low, high, of_fold.astype(np.int8), digest.hexdigest()
        )

    def of_split(self, values: NDArray[np.float32], split: Split) -> NDArray[np.float32]:
        """Of a value for each face those of a split."""
        spans = [slice(g.start, g.start + g.rows) for g in self.groups if g.split == split]
        return np.concatenate([values[:0], *(values[span] for span in spans)])

    def take(self, places: NDArray[np.int64], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read the faces at some places.

        Args:
            places: sorted.
            columns: to read.

        Yields:
            Rows in the order of the places, with their `place`, a row group at a time.
        """
        for group in self.groups:
            first, end = np.searchsorted(places, [group.start, group.start + group.rows])
            if first == end:
                continue
            here = places[first:end]
            with pq.ParquetFile(group.file, filesystem=self.folder.filesystem) as parquet:
                rows = parquet.read_row_group(group.number, list(columns))
            yield rows.take(pa.array(here - group.start)).append_column("place", pa.array(here))

    def rows(self, members: NDArray[np.bool_]) -> "AuditedRows":
        """The rows to label: of the faces at whose places `members` (n,) is true."""
        return AuditedRows(
            files=tuple(dict.fromkeys(group.file for group in self.groups)),
            filesystem=self.folder.filesystem,
            count=int(members.sum()),
            columns=IMAGE_COLUMNS,
            starts={(group.file, group.number): group.start for group in self.groups},
            members=members,
        )


@dataclass(frozen=True)
class AuditedRows(Rows):
    """Rows of faces with their place.

    Attributes:
        starts: place of the first row of each row group, by file and number.
        members: bool (n,), which faces are meant.
    """

    starts: Mapping[tuple[str, int], int] = field(default_factory=dict)
    members: NDArray[np.bool_] = field(default_factory=lambda: np.ones(0, bool))

    def read(self, block: Block) -> pa.Table:
        """The rows of a block that are meant."""
        first = self.starts[block.file, block.group] + block.start
        places = np.arange(first, first + block.rows)
        rows = with_column(super().read(block), "place", pa.array(places))
        return rows.filter(pa.array(self.members[places]))


def fold_of(key: str, folds: int) -> int:
    """The fold of a face, from its key alone: see `lib.datasets.labels.split_key`."""
    digest = hashlib.sha256(f"{_FOLD_SALT}{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") % folds
