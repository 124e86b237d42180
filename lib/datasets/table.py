"""Labels in a table of the user's own, CSV or Parquet, with column names of the user's own."""

import logging
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.common.errors import UserError
from lib.datasets.dataset import Dataset, open_file
from lib.datasets.labels import COLUMNS, as_age, gender_of_codes, gender_of_words
from lib.datasets.table_file import numbers, read_columns, strings
from lib.tasks.gender import Gender

log = logging.getLogger("prepare")


@dataclass(frozen=True)
class Names:
    """What the columns are called in the table.

    Attributes:
        path: Of the image: any path that ends in its name.
        age: In years; fractions are rounded down.
        gender: female, male, f, m, woman, man, or 0 and 1; None: the table has none, and a model of
            the age alone can be trained.
        identity: Who it is; all images of one identity go to one split.
        group: For figures by group.
    """

    path: str = "path"
    age: str = "age"
    gender: str | None = "gender"
    identity: str | None = None
    group: str | None = None

    def chosen(self) -> list[str]:
        """The columns to read, each once."""
        names = (self.path, self.age, self.gender, self.identity, self.group)
        return list(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class UserTable(Dataset):
    """A table of the user's own.

    Attributes:
        table: Text file with a header, separated by commas, semicolons or tabs, or Parquet file, for
            table.
        columns: What the columns of the table are called.
        gender_zero: What 0 stands for, if the genders of the table are the numbers 0 and 1.
    """

    name: ClassVar[str] = "table"
    title: ClassVar[str] = "a table of the user's own"
    terms: ClassVar[str] = "the terms of the pictures in the table hold"
    labels: ClassVar[str] = "a table of your own"
    file_option: ClassVar[str | None] = "table"

    table: Path | None = None
    columns: Names = field(default_factory=Names)
    gender_zero: Gender | None = None

    @property
    def has_gender(self) -> bool:
        """Whether a column of genders is named."""
        return self.columns.gender is not None

    @property
    def paths_are_unique(self) -> bool:
        """Yes: a table of the user's own may name its images as it likes."""
        return True

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the table."""
        assert self.table is not None
        with open_file(self.table) as file:
            return read_table(file, str(self.table), self.columns, self.gender_zero)


def read_table(file: BinaryIO, name: str, names: Names, zero: Gender | None = None) -> pa.Table:
    """Read labels from a text file with a header, or from a Parquet file.

    Ages are numbers of years, rounded down. Genders are female, male, f, m, woman, man in any case,
    or the numbers 0 and 1.

    Args:
        file: seekable, at its beginning.
        name: of the file; its ending, .csv, .tsv, .txt or .parquet, tells the format.
        names: of the columns.
        zero: what the number 0 stands for, where the genders are numbers.

    Returns:
        All rows in the order of the file, with the schema `labels.COLUMNS`. What cannot be read as
        an age or a gender is null, and the log names the first such value.

    Raises:
        UserError: the file cannot be read or is of another format, a column is missing, no age or no
            gender at all can be read, or genders are numbers and `zero` is not given.
    """
    columns = read_columns(file, name, names.chosen())
    count = columns.num_rows
    ages = as_age(numbers(columns[names.age]))
    _check_readable(columns, names.age, ages, name, "a number of years, such as 34")
    genders = _genders(strings(columns, names.gender), f"{names.gender} in {name}", zero)
    if names.gender is not None:
        _check_readable(columns, names.gender, genders, name, "female, male, f, m, woman or man")
    return pa.table(
        {
            "path": _paths(columns, names.path),
            "age": ages,
            "gender": genders,
            "identity": strings(columns, names.identity),
            "group": strings(columns, names.group),
            "source": [UserTable.name] * count,
            "source_row": range(count),
        },
        schema=COLUMNS,
    )


def _check_readable(
    columns: pa.Table, column: str, read: pa.Array | pa.ChunkedArray, name: str, wanted: str
) -> None:
    """Say what of a column cannot be read, before any image is.

    Raises:
        UserError: nothing of it can be read.
    """
    given = strings(columns, column)
    unread = np.flatnonzero(
        given.is_valid().to_numpy() & pa.chunked_array([read]).is_null().to_numpy()
    )
    if not len(unread):
        return
    first = int(unread[0])
    what = f"{column!r} of {name}: {given[first].as_py()!r} in row {first + 1} is not {wanted}"
    if len(unread) == len(given) - given.null_count:
        raise UserError(f"{what}, and so are all others; convert them first")
    log.warning("%s; rows with such values: %s", what, f"{len(unread):,}")


def _paths(table: pa.Table, column: str) -> pa.Array:
    """Paths without `.` and needless slashes."""
    paths = strings(table, column).to_pylist()
    return pa.array([p and posixpath.normpath(p.replace("\\", "/")) for p in paths], pa.string())


def _genders(column: pa.ChunkedArray, what: str, zero: Gender | None) -> pa.ChunkedArray:
    """Words, or the numbers 0 and 1 if it is known what 0 stands for; null for all else."""
    codes = numbers(column)
    if zero is None and np.isin(codes, (0, 1)).any():
        raise UserError(
            f"{what} holds 0 and 1, which data sets use both ways: say whether 0 is female or male"
        )
    return pc.coalesce(gender_of_words(column), gender_of_codes(codes, zero or "female"))
