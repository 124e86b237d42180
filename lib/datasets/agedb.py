"""AgeDB: the labels are in the file names, `[number]_[person]_[age]_[gender].jpg`.

See https://ibug.doc.ic.ac.uk/resources/agedb/. The card of
huggingface.co/datasets/ChanganYao/DeepImbalancedRegressionForMLLMs quotes such names.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

import pyarrow as pa

from lib.datasets.dataset import Dataset
from lib.datasets.labels import gender_of_words, labelled_rows

_NAME = re.compile(r"\d+_(?P<person>.+)_(?P<age>\d{1,3})_(?P<gender>[mf])\.jpe?g", re.I)


@dataclass(frozen=True)
class AgeDb(Dataset):
    """AgeDB: no options."""

    name: ClassVar[str] = "agedb"
    title: ClassVar[str] = "AgeDB (https://ibug.doc.ic.ac.uk/resources/agedb/)"
    terms: ClassVar[str] = "for non-commercial research only"
    labels: ClassVar[str] = "the names of the images"

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Label the images by their names; a name of another kind has no labels."""
        paths = list(dict.fromkeys(image_names()))
        matches = [_NAME.fullmatch(PurePosixPath(path).name) for path in paths]

        def part(name: str) -> pa.StringArray:
            return pa.array([match and match[name] for match in matches], pa.string())

        columns = {
            "path": paths,
            "age": part("age").cast(pa.int16()),
            "gender": gender_of_words(pa.chunked_array([part("gender")])),
            "identity": part("person"),
        }
        return labelled_rows(self.name, columns)
