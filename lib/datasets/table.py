"""Labels in a table of the user's own, CSV or Parquet, with column names of the user's own."""

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


@dataclass(frozen=True)
class Names:
    """What the columns are called in the table.

    Attributes:
        path: Of the image: any path that ends in its name.
        age: In years; fractions are rounded down.
        gender: female, male, f, m, woman, man, or 0 and 1.
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
        table: CSV file with a header or Parquet file, for table.
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

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the table."""
        with self.open_file() as file:
            return read_table(file, str(self.table), self.columns, self.gender_zero)


def read_table(file: BinaryIO, name: str, names: Names, zero: Gender | None = None) -> pa.Table:
    """Read labels from a CSV file with a header, or from a Parquet file.

    Ages are numbers of years, rounded down. Genders are female, male, f, m, woman, man in any case,
    or the numbers 0 and 1.

    Args:
        file: seekable, at its beginning.
        name: of the file; its ending, .csv or .parquet, tells the format.
        names: of the columns.
        zero: what the number 0 stands for, where the genders are numbers.

    Returns:
        All rows in the order of the file, with the schema `labels.COLUMNS`. What cannot be read as
        an age or a gender is null.

    Raises:
        UserError: the file cannot be read or is of another format, a column is missing, or genders
            are numbers and `zero` is not given.
    """
    columns = _read_columns(file, name, names.chosen())
    count = columns.num_rows
    return pa.table(
        {
            "path": _strings(columns, names.path),
            "age": as_age(_numbers(columns[names.age])),
            "gender": _genders(_strings(columns, names.gender), f"{names.gender} in {name}", zero),
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
    if suffix not in (".csv", ".parquet"):
        raise UserError(f"{name} ends neither in .csv nor in .parquet")
    try:
        if suffix == ".csv":
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
    return csv.read_csv(file, convert_options=as_strings)


def _check_columns(there: list[str], name: str, chosen: list[str]) -> None:
    missing = [column for column in chosen if column not in there]
    if missing:
        raise UserError(f"{name} has no column {', '.join(missing)}; it has {', '.join(there)}")


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
