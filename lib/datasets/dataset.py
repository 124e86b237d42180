"""What every data set of labelled faces provides."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

import pyarrow as pa

from lib.common.errors import UserError
from lib.datasets.table_file import read_columns, strings


class Dataset(ABC):
    """A data set: a frozen dataclass whose fields are its options of jobs.prepare.

    Attributes:
        name: for --source.
        title: for people, with its address.
        terms: what its publishers allow.
        labels: where its labels are, for the help of --source.
        file_option: the option with the files of labels; None: the names of the images are the labels.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    terms: ClassVar[str]
    labels: ClassVar[str]
    file_option: ClassVar[str | None] = None

    @abstractmethod
    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the labels.

        Args:
            image_names: gives the names of all images.

        Returns:
            One row for each face, with the columns `labels.COLUMNS` and behind them, where the data set
            has such, `labels.AGE_BAND`, `labels.BOX`, and columns of its own.

        Raises:
            UserError: the labels cannot be read.
        """

    @property
    def has_gender(self) -> bool:
        """Whether its faces have genders; without, a model of the age alone can be trained."""
        return True

    @property
    def paths_are_unique(self) -> bool:
        """Whether a path that fits two images is an error; else the first image counts."""
        return False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of labels that are given."""
        given = getattr(self, self.file_option) if self.file_option else None
        if isinstance(given, tuple):
            return given
        return () if given is None else (given,)


def open_file(file: Path) -> BinaryIO:
    """Open a file of labels.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {str(file)!r}: {error.strerror}") from None


def read_tables(files: Sequence[Path], columns: Sequence[str]) -> pa.Table:
    """Read some columns of the text files of a data set, as strings, one file after the other.

    Args:
        files: with a header; at least one.
        columns: that each of them has.

    Returns:
        (n) rows: the columns, an empty value as null, and `of_file`, the name of the file.

    Raises:
        UserError: a file cannot be read, or it lacks a column.
    """
    tables = []
    for file in files:
        with open_file(file) as stream:
            table = read_columns(stream, file.name, list(columns))
        read = {name: strings(table, name) for name in columns}
        tables.append(pa.table({**read, "of_file": [file.name] * table.num_rows}))
    return pa.concat_tables(tables).combine_chunks()
