"""UTKFace: the labels are in the file names, `[age]_[gender]_[race]_[timestamp].jpg.chip.jpg`.

See https://susanqq.github.io/UTKFace/.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

import pyarrow as pa

from lib.datasets.dataset import Dataset
from lib.datasets.labels import COLUMNS, gender_of_codes

_NAME = re.compile(r"(?P<age>\d{1,3})_(?P<gender>\d?)_(?:(?P<race>\d)_)?\d+ ?\.?jpe?g\b.*", re.I)


@dataclass(frozen=True)
class UtkFace(Dataset):
    """UTKFace: no options."""

    name: ClassVar[str] = "utkface"
    title: ClassVar[str] = "UTKFace (https://susanqq.github.io/UTKFace/)"
    terms: ClassVar[str] = "for non-commercial research only"
    labels: ClassVar[str] = "the names of the images"

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Label the chips by their names."""
        return read_names(list(dict.fromkeys(image_names())))


@dataclass(frozen=True)
class ChipName:
    """The numbers in a file name; None where the name leaves one out."""

    age: int | None = None
    gender: int | None = None
    """0 male, 1 female: the opposite of IMDB-WIKI. Convert with `labels.gender_of_codes`."""
    race: int | None = None
    """0 White, 1 Black, 2 Asian, 3 Indian, 4 others."""


def parse_name(path: str) -> ChipName:
    """Read the labels from the path of a chip; all None for another kind of file name."""
    match = _NAME.fullmatch(PurePosixPath(path).name)
    if match is None:
        return ChipName()
    return ChipName(int(match["age"]), _number(match["gender"]), _number(match["race"]))


def read_names(paths: Sequence[str], first_row: int = 0) -> pa.Table:
    """Label chips by their names.

    Args:
        paths: of the chips, in a deterministic order.
        first_row: `source_row` of the first one.

    Returns:
        One row for each path, with the schema `labels.COLUMNS`. A name of another kind has neither
        age nor gender; a name without a race code has no group.
    """
    names = [parse_name(path) for path in paths]
    nothing = [None] * len(paths)
    return pa.table(
        {
            "path": paths,
            "age": pa.array([name.age for name in names], pa.int16()),
            "gender": gender_of_codes([_or_nan(name.gender) for name in names], zero="male"),
            "identity": nothing,
            "group": [None if name.race is None else str(name.race) for name in names],
            "source": [UtkFace.name] * len(paths),
            "source_row": range(first_row, first_row + len(paths)),
        },
        schema=COLUMNS,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _or_nan(number: int | None) -> float:
    return math.nan if number is None else number
