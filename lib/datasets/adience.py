"""Adience: five files of folds, `fold_0_data.txt` to `fold_4_data.txt`, label the folder `aligned/`.

See https://talhassner.github.io/home/projects/Adience/Adience-data.html. The owner of the album, the name
of the photograph and the number of the face make the name of the aligned image, as in the tests of
github.com/ayrna/dlordinal. Most ages are one of eight bands; some are other bands or numbers, which
github.com/WildChlamydia/MiVOLO lists, and count here for what they say.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from lib.datasets.age_texts import read_ages
from lib.datasets.dataset import Dataset, read_tables
from lib.datasets.labels import AGE_BAND, gender_of_words, labelled_rows


@dataclass(frozen=True)
class Adience(Dataset):
    """Adience.

    Attributes:
        adience_folds: fold_0_data.txt to fold_4_data.txt, for adience.
    """

    name: ClassVar[str] = "adience"
    title: ClassVar[str] = (
        "Adience (https://talhassner.github.io/home/projects/Adience/Adience-data.html)"
    )
    terms: ClassVar[str] = "photographs from Flickr; the terms on the page of the data set hold"
    labels: ClassVar[str] = "fold_0_data.txt to fold_4_data.txt, of the images in aligned/"
    file_option: ClassVar[str | None] = "adience_folds"

    adience_folds: tuple[Path, ...] = ()

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read the files; all images of an album go to one split, since it shows few people."""
        table = read_tables(
            self.adience_folds, ("user_id", "original_image", "face_id", "age", "gender")
        )
        names = pc.binary_join_element_wise(
            "landmark_aligned_face", table["face_id"], table["original_image"], "."
        )
        columns = {
            "path": pc.binary_join_element_wise(table["user_id"], names, "/"),
            **read_ages(table["age"].to_pylist())._asdict(),
            "gender": gender_of_words(table["gender"]),
            "identity": table["user_id"],
        }
        return labelled_rows(self.name, columns, AGE_BAND)
