"""The truth about images in a table of the user's own, to compare labels with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from lib.common.errors import UserError
from lib.datasets.table import Names, read_table
from lib.tasks.age import AGE
from lib.tasks.gender import GENDER, Gender


@dataclass(frozen=True)
class TruthColumns:
    """What the columns of the table are called.

    Attributes:
        path: Of the image: its uri in the labels, or any path that ends in its file name.
        age: In years; fractions count.
        gender: female, male, f, m, woman, man, or 0 and 1; None where there is no such column.
        group: For figures by group.
        sigma: Standard deviation of the ages that people gave, in years, for the epsilon error.
    """

    path: str = "path"
    age: str = AGE.name
    gender: str | None = GENDER.name
    group: str | None = None
    sigma: str | None = None


def read_truth(file: Path, columns: TruthColumns, zero: Gender | None = None) -> pa.Table:
    """Read a CSV file with a header, or a Parquet file.

    Args:
        file: whose ending tells the format.
        columns: their names.
        zero: what the number 0 stands for, where the genders are numbers.

    Returns:
        `name` (the path), `age` (float64, years), `gender`, `group` and, where asked for, `sigma`
        (float64, years). What cannot be read is null or NaN.

    Raises:
        UserError: the file or a column is missing, or it cannot be read.
    """
    names = Names(columns.path, columns.age, columns.gender, group=columns.group)
    try:
        with file.open("rb") as stream:
            labels = read_table(stream, file.name, names, zero)
    except OSError as error:
        raise UserError(f"cannot read --truth {str(file)!r}: {error.strerror}") from None
    # Whole years are what images are trained on; what people say of a face has fractions.
    numbers = {AGE.name: columns.age} | ({"sigma": columns.sigma} if columns.sigma else {})
    return pa.table(
        {
            "name": labels["path"],
            GENDER.name: labels[GENDER.name],
            "group": labels["group"],
            **_read_numbers(file, numbers),
        }
    )


def _read_numbers(file: Path, columns: Mapping[str, str]) -> dict[str, pa.Array]:
    """Columns as float64 under new names, NaN for everything that is no number."""
    names = list(dict.fromkeys(columns.values()))
    try:
        if file.suffix.lower() == ".csv":
            table = csv.read_csv(file, convert_options=csv.ConvertOptions(include_columns=names))
        else:
            table = pq.read_table(file, columns=names, partitioning=None)
    except pa.ArrowException as error:
        raise UserError(f"{file.name} cannot be read: {str(error).splitlines()[0]}") from None
    return {
        new: pa.array(pd.to_numeric(table[old].to_pandas(), errors="coerce"), pa.float64())
        for new, old in columns.items()
    }
