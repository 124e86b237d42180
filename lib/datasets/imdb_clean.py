"""IMDB-Clean: three CSV files with cleaned labels and boxes of faces in images of IMDB-WIKI.

See https://github.com/yiminglin-ai/imdb-clean. Its script makes the images in `imdb-clean-1024/`, and
`imdb_train_new_1024.csv` and so on, with the boxes in these images. The files without `_1024`, with the
boxes in the original photographs, have the same columns.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from lib.datasets.dataset import Dataset, read_tables
from lib.datasets.imdb_wiki import imdb_numbers
from lib.datasets.labels import BOX, as_age, gender_of_words, labelled_rows
from lib.datasets.table_file import numbers

_BOX = dict(zip(BOX.names, ("x_min", "y_min", "x_max", "y_max"), strict=True))


@dataclass(frozen=True)
class ImdbClean(Dataset):
    """IMDB-Clean.

    Attributes:
        imdb_clean_labels: imdb_train_new_1024.csv, imdb_valid_new_1024.csv and imdb_test_new_1024.csv,
            or some of them, for imdb-clean.
    """

    name: ClassVar[str] = "imdb-clean"
    title: ClassVar[str] = "IMDB-Clean (https://github.com/yiminglin-ai/imdb-clean)"
    terms: ClassVar[str] = (
        "labels under the MIT licence; the images are those of IMDB-WIKI, for academic research only"
    )
    labels: ClassVar[str] = "imdb_train_new_1024.csv and the like"
    file_option: ClassVar[str | None] = "imdb_clean_labels"

    imdb_clean_labels: tuple[Path, ...] = ()

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the files; the identity is the nm number in the name of the image."""
        table = read_tables(self.imdb_clean_labels, ("filename", "age", "gender", *_BOX.values()))
        paths = table["filename"].combine_chunks()
        columns = {
            "path": paths,
            "age": as_age(numbers(table["age"])),
            "gender": gender_of_words(table["gender"]),
            "identity": imdb_numbers(paths),
            **{name: numbers(table[column]) for name, column in _BOX.items()},
        }
        return labelled_rows(self.name, columns, BOX)
