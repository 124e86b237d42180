"""FairFace: two CSV files name the images, `train/1.jpg`, with an age band, a gender and a race.

See https://github.com/joojs/fairface, which also states the licence. The columns and the names of the
bands are those that the scripts of github.com/WildChlamydia/MiVOLO read.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from lib.datasets.age_texts import read_ages
from lib.datasets.dataset import Dataset, read_tables
from lib.datasets.labels import AGE_BAND, gender_of_words, labelled_rows


@dataclass(frozen=True)
class FairFace(Dataset):
    """FairFace.

    Attributes:
        fairface_labels: fairface_label_train.csv, fairface_label_val.csv, or both, for fairface.
    """

    name: ClassVar[str] = "fairface"
    title: ClassVar[str] = "FairFace (https://github.com/joojs/fairface)"
    terms: ClassVar[str] = "CC BY 4.0: its authors must be named"
    labels: ClassVar[str] = "fairface_label_train.csv and fairface_label_val.csv"
    file_option: ClassVar[str | None] = "fairface_labels"

    fairface_labels: tuple[Path, ...] = ()

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the files; the group is the race."""
        table = read_tables(self.fairface_labels, ("file", "age", "gender", "race"))
        ages = read_ages(table["age"].to_pylist())
        columns = {
            "path": table["file"],
            **ages._asdict(),
            "gender": gender_of_words(table["gender"]),
            "group": table["race"],
        }
        return labelled_rows(self.name, columns, AGE_BAND)
