"""Reads and checks folders of Parquet files with the same columns."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lib.common.errors import UserError, reason_of
from lib.storage.folder import Folder


def parquet_files(folder: Folder, what: str) -> list[str]:
    """List the Parquet files directly in a folder, by name.

    Args:
        folder: to look in.
        what: expected contents, for the message.

    Returns:
        Their paths in the folder's file system.

    Raises:
        UserError: there are none, or the folder cannot be listed.
    """
    try:
        names = folder.files()
    except OSError as error:
        raise UserError(f"cannot read {str(folder)!r}: {reason_of(error)}") from None
    if not names:
        raise UserError(f"no Parquet files in {str(folder)!r}; it should be {what}")
    return [f"{folder.path}/{name}" for name in names]


def read_columns(
    folder: Folder, files: Sequence[str], required: Sequence[str], welcome: Sequence[str] = ()
) -> pa.Table:
    """Read some columns of all files, one file after the other.

    Args:
        folder: that holds them.
        files: at least one, of `parquet_files`, all with the columns of the first.
        required: columns.
        welcome: optional columns, read where the files have them.

    Raises:
        UserError: a file is not readable Parquet, or a required column is missing.
    """
    try:
        there = check_columns(folder, files[0], required)
        columns = [*required, *(name for name in welcome if name in there)]
        rows = pq.ParquetDataset(list(files), filesystem=folder.filesystem, partitioning=None)
        return rows.read(columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read the files in {str(folder)!r}: {reason_of(error)}") from None


def check_columns(folder: Folder, file: str, required: Sequence[str]) -> list[str]:
    """Give the names of all columns of a file.

    Raises:
        UserError: the file is not readable Parquet, or a required column is missing.
    """
    name = f"{folder}/{file.rpartition('/')[2]}"
    try:
        there = pq.read_schema(file, filesystem=folder.filesystem).names
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {name!r}: {reason_of(error)}") from None
    missing = [column for column in required if column not in there]
    if missing:
        raise UserError(f"{name!r} has no column {', '.join(missing)}")
    return there
