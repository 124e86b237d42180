"""A folder of Parquet files that belong together."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lib.errors import UserError


def parquet_files(folder: Path, what: str) -> list[Path]:
    """List the Parquet files directly in a folder, by name.

    Args:
        folder: to look in.
        what: the folder should be, for the message.

    Raises:
        UserError: there are none.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(f"no Parquet files in {str(folder)!r}; it should be {what}")
    return files


def read_columns(
    files: Sequence[Path], required: Sequence[str], welcome: Sequence[str] = ()
) -> pa.Table:
    """Read some columns of all files, one file after the other.

    Args:
        files: at least one, all with the columns of the first.
        required: columns.
        welcome: further columns, read where they are there.

    Raises:
        UserError: a file is not readable Parquet, or a required column is missing.
    """
    try:
        there = check_columns(files[0], required)
        columns = [*required, *(name for name in welcome if name in there)]
        return pq.ParquetDataset(files, partitioning=None).read(columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot read the files in {str(files[0].parent)!r}: {reason}") from None


def check_columns(file: Path, required: Sequence[str]) -> list[str]:
    """Give the names of all columns of a file.

    Raises:
        UserError: the file is not readable Parquet, or a required column is missing.
    """
    try:
        there = pq.read_schema(file).names
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {str(file)!r}: {str(error).splitlines()[0]}") from None
    missing = [name for name in required if name not in there]
    if missing:
        raise UserError(f"{str(file)!r} has no column {', '.join(missing)}")
    return there
