"""What every data set of labelled faces provides."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, ClassVar

import pyarrow as pa

from lib.common.errors import UserError


class Dataset(ABC):
    """A data set: a frozen dataclass whose fields are its options of jobs.prepare.

    Attributes:
        name: for --source.
        title: for people, with its address.
        terms: what its publishers allow.
        labels: where its labels are, for the help of --source.
        file_option: the option with the file of labels; None: the names of the images are the labels.
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
            One row for each face, with the columns `labels.COLUMNS` and columns of its own behind them.

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
    def file(self) -> Path | None:
        """The file of labels, if it is given."""
        return getattr(self, self.file_option) if self.file_option else None

    def open_file(self) -> BinaryIO:
        """Open the file of labels.

        Raises:
            UserError: it cannot be opened.
        """
        assert self.file is not None
        try:
            return self.file.open("rb")
        except OSError as error:
            raise UserError(f"cannot read {str(self.file)!r}: {error.strerror}") from None
