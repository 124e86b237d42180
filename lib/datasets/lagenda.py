"""LAGENDA: a CSV file with a row for each person in photographs of Open Images; -1 means unknown.

See https://wildchlamydia.github.io/lagenda/. The columns are those that github.com/WildChlamydia/MiVOLO
reads. Many rows lack the age, the gender or the box of the face, since only some people were labelled.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from lib.datasets.dataset import Dataset, read_tables
from lib.datasets.labels import BOX, as_age, gender_of_words, labelled_rows
from lib.datasets.table_file import numbers


@dataclass(frozen=True)
class Lagenda(Dataset):
    """LAGENDA.

    Attributes:
        lagenda_labels: lagenda_annotation.csv, for lagenda.
    """

    name: ClassVar[str] = "lagenda"
    title: ClassVar[str] = "LAGENDA (https://wildchlamydia.github.io/lagenda/)"
    terms: ClassVar[str] = (
        "photographs of Open Images, each under the licence of its author; for the labels the terms on "
        "the page of the data set hold"
    )
    labels: ClassVar[str] = "lagenda_annotation.csv"
    file_option: ClassVar[str | None] = "lagenda_labels"

    lagenda_labels: Path | None = None

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the file; as the identity stands the photograph, whose faces so go to one split."""
        boxes = {name: f"face_{name}" for name in BOX.names}
        table = read_tables(self.files, ("img_name", "age", "gender", *boxes.values()))
        columns = {
            "path": table["img_name"],
            "age": as_age(numbers(table["age"])),
            "gender": gender_of_words(table["gender"]),
            "identity": table["img_name"],
            **{name: numbers(table[column]) for name, column in boxes.items()},
        }
        return labelled_rows(self.name, columns, BOX)
