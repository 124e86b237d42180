"""Reads columns of a table of labels: a text file with a header, or Parquet."""

import csv as text_csv
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv

from lib.common.errors import UserError

_TEXT = (".csv", ".tsv", ".txt")
_SEPARATORS = (",", ";", "\t")
_LONGEST_HEADER = 1 << 20


def read_columns(file: BinaryIO, name: str, chosen: list[str]) -> pa.Table:
    """Read some columns: those of a text file as strings, those of Parquet as they are.

    Args:
        file: seekable, at its beginning.
        name: of the file; its ending, .csv, .tsv, .txt or .parquet, tells the format.
        chosen: the columns.

    Raises:
        UserError: the file cannot be read or is of another format, or a column is missing.
    """
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


def strings(table: pa.Table, column: str | None) -> pa.ChunkedArray:
    """A column as strings, the empty ones null; nulls where there is no such column."""
    if column is None:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    values = table[column]
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    texts = values.cast(pa.string())
    return pc.if_else(pc.equal(texts, ""), None, texts)


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column as numbers, NaN for everything that is none."""
    return pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64, na_value=np.nan)
