"""APPA-REAL: a CSV file for each of three folders gives the real age and what people guessed; no genders.

See https://chalearnlap.cvc.uab.cat/dataset/26/description/. Its read-me, as
github.com/KilArtur/age-recognition-by-photo quotes it, says that `train/X.jpg_face.jpg` is the face of
`train/X.jpg`, turned upright, with 40% of margin.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.common.errors import UserError
from lib.datasets.dataset import Dataset, read_tables
from lib.datasets.labels import as_age, labelled_rows
from lib.datasets.table_file import numbers

_FILE = re.compile(r"gt_avg_(train|valid|test)\.csv")
_COLUMNS = {"real": "real_age", "apparent": "apparent_age_avg"}


@dataclass(frozen=True)
class AppaReal(Dataset):
    """APPA-REAL.

    Attributes:
        appa_real_labels: gt_avg_train.csv, gt_avg_valid.csv, gt_avg_test.csv, or some of them, for
            appa-real.
        appa_real_age: The age to learn, for appa-real: the real one, or the mean of what people
            guessed, rounded.
    """

    name: ClassVar[str] = "appa-real"
    title: ClassVar[str] = "APPA-REAL (https://chalearnlap.cvc.uab.cat/dataset/26/description/)"
    terms: ClassVar[str] = "the terms on the page of the data set hold"
    labels: ClassVar[str] = "gt_avg_train.csv, gt_avg_valid.csv and gt_avg_test.csv"
    file_option: ClassVar[str | None] = "appa_real_labels"

    appa_real_labels: tuple[Path, ...] = ()
    appa_real_age: Literal["real", "apparent"] = "real"

    @property
    def has_gender(self) -> bool:
        """No: a model of the age alone can be trained."""
        return False

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the files, and name the faces that were cut out.

        Raises:
            UserError: the name of a file does not tell its folder.
        """
        for file in self.appa_real_labels:
            if not _FILE.fullmatch(file.name):
                raise UserError(
                    f"--appa-real-labels {str(file)!r} is none of gt_avg_train.csv, gt_avg_valid.csv "
                    "and gt_avg_test.csv, whose names tell the folder of the images"
                )
        age = _COLUMNS[self.appa_real_age]
        table = read_tables(self.appa_real_labels, ("file_name", age))
        folders = pc.replace_substring_regex(table["of_file"], _FILE.pattern, r"\1")
        faces = pc.binary_join_element_wise(table["file_name"], "_face.jpg", "")
        years = numbers(table[age])
        columns = {
            "path": pc.binary_join_element_wise(folders, faces, "/"),
            "age": as_age(np.rint(years) if self.appa_real_age == "apparent" else years),
        }
        return labelled_rows(self.name, columns)
