"""Labels in a table of the user's own, CSV or Parquet, with column names of the user's own."""

import csv as text_csv
import logging
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv

from lib.common.errors import UserError
from lib.datasets.dataset import Dataset
from lib.datasets.labels import COLUMNS, as_age, gender_of_codes, gender_of_words
from lib.tasks.gender import Gender

log = logging.getLogger("prepare")

_TEXT = (".csv", ".tsv", ".txt")
_SEPARATORS = (",", ";", "\t")
_LONGEST_HEADER = 1 << 20


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
        with self.open_file() as file:
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
    columns = _read_columns(file, name, names.chosen())
    count = columns.num_rows
    ages = as_age(_numbers(columns[names.age]))
    _check_readable(columns, names.age, ages, name, "a number of years, such as 34")
    genders = _genders(_strings(columns, names.gender), f"{names.gender} in {name}", zero)
    if names.gender is not None:
        _check_readable(columns, names.gender, genders, name, "female, male, f, m, woman or man")
    return pa.table(
        {
            "path": _paths(columns, names.path),
            "age": ages,
            "gender": genders,
            "identity": _strings(columns, names.identity),
            "group": _strings(columns, names.group),
            "source": [UserTable.name] * count,
            "source_row": range(count),
        },
        schema=COLUMNS,
    )


def _read_columns(file: BinaryIO, name: str, chosen: list[str]) -> pa.Table:
    """Read the chosen columns: those of a CSV file as strings, those of Parquet as they are."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in (*_TEXT, ".parquet"):
        raise UserError(f"{name} ends in none of {', '.join((*_TEXT, '.parquet'))}")
    try:
        if suffix in _TEXT:
            table = _read_csv(file, chosen)
            _check_columns(table.column_names, name, chosen)
            return table.select(chosen)
        parquet = pq.ParquetFile(file)
        _check_columns(parquet.schema_arrow.names, name, chosen)
        return parquet.read(columns=chosen)
    except pa.ArrowException as error:
        raise UserError(f"{name} cannot be read: {str(error).splitlines()[0]}") from error


def _read_csv(file: BinaryIO, chosen: list[str]) -> pa.Table:
    as_strings = csv.ConvertOptions(
        column_types={name: pa.string() for name in chosen}, strings_can_be_null=True
    )
    separator = csv.ParseOptions(delimiter=_separator(file, chosen))
    return csv.read_csv(file, parse_options=separator, convert_options=as_strings)


def _separator(file: BinaryIO, chosen: list[str]) -> str:
    """The separator with which the header has the chosen columns; else a comma."""
    header = file.readline(_LONGEST_HEADER).decode("utf-8-sig", "replace")
    file.seek(0)
    for separator in _SEPARATORS:
        if set(chosen) <= set(next(text_csv.reader([header], delimiter=separator), ())):
            return separator
    return _SEPARATORS[0]


def _check_columns(there: list[str], name: str, chosen: list[str]) -> None:
    missing = [column for column in chosen if column not in there]
    if missing:
        raise UserError(f"{name} has no column {', '.join(missing)}; it has {', '.join(there)}")


def _check_readable(
    columns: pa.Table, column: str, read: pa.Array | pa.ChunkedArray, name: str, wanted: str
) -> None:
    """Say what of a column cannot be read, before any image is.

    Raises:
        UserError: nothing of it can be read.
    """
    given = _strings(columns, column)
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
    paths = _strings(table, column).to_pylist()
    return pa.array([p and posixpath.normpath(p.replace("\\", "/")) for p in paths], pa.string())


def _strings(table: pa.Table, column: str | None) -> pa.ChunkedArray:
    """A column as strings, the empty ones null; nulls where there is no such column."""
    if column is None:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    values = table[column]
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    strings = values.cast(pa.string())
    return pc.if_else(pc.equal(strings, ""), None, strings)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column as numbers, NaN for everything that is none."""
    return pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)


def _genders(column: pa.ChunkedArray, what: str, zero: Gender | None) -> pa.ChunkedArray:
    """Words, or the numbers 0 and 1 if it is known what 0 stands for; null for all else."""
    codes = _numbers(column)
    if zero is None and np.isin(codes, (0, 1)).any():
        raise UserError(
            f"{what} holds 0 and 1, which data sets use both ways: say whether 0 is female or male"
        )
    return pc.coalesce(gender_of_words(column), gender_of_codes(codes, zero or "female"))
