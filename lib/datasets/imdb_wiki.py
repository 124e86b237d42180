"""IMDB-WIKI: the labels are in imdb.mat and wiki.mat, MATLAB 5 files with one struct of columns.

See https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy.io import loadmat

from lib.common.errors import UserError
from lib.datasets.dataset import Dataset, open_file
from lib.datasets.labels import COLUMNS, as_age, gender_of_codes

SOURCES = ("imdb", "wiki")
"""The name of the struct is the name of the source."""

SCORED_COLUMNS = COLUMNS.append(pa.field("face_score", pa.float64())).append(
    pa.field("second_face_score", pa.float64())
)
"""`labels.COLUMNS` and the detector's scores: -inf: no face found; second: NaN: no second face."""

_FIELDS = (
    "dob",
    "photo_taken",
    "full_path",
    "gender",
    "name",
    "face_score",
    "second_face_score",
)
_UNIX_EPOCH = 719_529  # as a MATLAB datenum, which counts days and has 1 for 1 January of year 0
_FIRST_DAY = 367  # 1 January of year 1
_LAST_DAY = 3_652_425  # 31 December 9999


@dataclass(frozen=True)
class ImdbWiki(Dataset):
    """IMDB-WIKI.

    Attributes:
        metadata: imdb.mat or wiki.mat, for imdb-wiki.
    """

    name: ClassVar[str] = "imdb-wiki"
    title: ClassVar[str] = "IMDB-WIKI (https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/)"
    terms: ClassVar[str] = "for academic research only"
    labels: ClassVar[str] = "imdb.mat or wiki.mat"
    file_option: ClassVar[str | None] = "metadata"

    metadata: Path | None = None

    def read_rows(self, image_names: Callable[[], Iterable[str]]) -> pa.Table:
        """Read imdb.mat or wiki.mat, with the schema `SCORED_COLUMNS`."""
        assert self.metadata is not None
        with open_file(self.metadata) as file:
            return read_metadata(file, str(self.metadata))


def read_metadata(file: BinaryIO, name: str) -> pa.Table:
    """Read imdb.mat or wiki.mat.

    Args:
        file: seekable, at its beginning.
        name: of the file, for the messages.

    Returns:
        All rows in the order of the file, with the schema `SCORED_COLUMNS`. The age is null where a
        date is impossible. The identity is the nm number in the file name, as IMDB has it, else
        the celebrity's name, else null. There are no groups.

    Raises:
        UserError: the file is not such a .mat, or its fields are missing or of different lengths.
    """
    source, fields = _load(file, name)
    count = len(fields["dob"])
    paths = _texts(fields["full_path"])
    return pa.table(
        {
            "path": paths,
            "age": as_age(official_age(fields["dob"], fields["photo_taken"])),
            "gender": gender_of_codes(fields["gender"], zero="female"),
            "identity": pc.coalesce(imdb_numbers(paths), _texts(fields["name"])),
            "group": pa.nulls(count, pa.string()),
            "source": [source] * count,
            "source_row": range(count),
            "face_score": fields["face_score"].astype(np.float64),
            "second_face_score": fields["second_face_score"].astype(np.float64),
        },
        schema=SCORED_COLUMNS,
    )


def official_age(dob: ArrayLike, photo_taken: ArrayLike) -> NDArray[np.float64]:
    """Age in whole years on 1 July of the year in which the photograph was taken.

    The convention of the data set's authors, who know the year only. Who is born on 1 July has had
    the birthday.

    Args:
        dob: (n,) dates of birth as MATLAB datenums, in days.
        photo_taken: (n,) calendar years.

    Returns:
        (n,) float64 years, possibly negative; NaN where the birth is not in the years 1 to 9999
        (NumPy's calendar and MATLAB's agree on those) or the photograph has no year.
    """
    born = np.asarray(dob, np.float64)
    taken = np.asarray(photo_taken, np.float64)
    known = (born >= _FIRST_DAY) & (born <= _LAST_DAY)
    days = np.where(known, born, _UNIX_EPOCH).astype(np.int64) - _UNIX_EPOCH
    birth = days.astype("datetime64[D]")
    birth_year = birth.astype("datetime64[Y]")
    july_first = (birth_year.astype("datetime64[M]") + 6).astype("datetime64[D]")
    age = taken - (birth_year.astype(np.int64) + 1970) - (birth > july_first)
    return np.where(known, age, np.nan)


def imdb_numbers(paths: pa.StringArray) -> pa.StringArray:
    """The nm number in names such as NN/nm0000001_rm124825600_1899-5-10_1968.jpg, else null."""
    return pc.struct_field(pc.extract_regex(paths, r"(?:^|/)(?P<number>nm\d+)_[^/]*$"), "number")


def _load(file: BinaryIO, name: str) -> tuple[str, dict[str, NDArray]]:
    """Find the struct, and check that its fields are there and equally long."""
    variables = _load_variables(file, name)
    source = next((source for source in SOURCES if source in variables), None)
    if source is None:
        there = ", ".join(key for key in variables if not key.startswith("__")) or "nothing"
        raise UserError(
            f"{name} holds {there}, not the struct imdb or wiki: give imdb.mat or wiki.mat"
        )
    struct = variables[source]
    if struct.dtype.names is None or struct.size != 1:
        raise UserError(
            f"{source} in {name} is not one struct: give the original imdb.mat or wiki.mat"
        )
    missing = [field for field in _FIELDS if field not in struct.dtype.names]
    if missing:
        raise UserError(
            f"{source} in {name} lacks {', '.join(missing)}; it has {', '.join(struct.dtype.names)}"
        )
    fields = {field: struct[field].item().ravel() for field in _FIELDS}
    lengths = {field: len(values) for field, values in fields.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{field} {length}" for field, length in lengths.items())
        raise UserError(f"the fields of {source} in {name} differ in length: {counted}")
    return source, fields


def _load_variables(file: BinaryIO, name: str) -> dict[str, NDArray]:
    try:
        return loadmat(file)
    except NotImplementedError as error:  # what SciPy raises for version 7.3, which is HDF5
        raise UserError(
            f"{name} is a MATLAB 7.3 file (HDF5): save it with -v7, or give the original"
        ) from error
    except Exception as error:  # SciPy answers damage with whatever its parser stumbles over
        raise UserError(f"{name} cannot be read as a MATLAB 5 file: {error}") from error


def _texts(cells: NDArray[np.object_]) -> pa.StringArray:
    """MATLAB strings in cells: each an array of one string, or of none where it is empty."""
    texts = [str(cell.item()) if cell.size == 1 else None for cell in cells]
    return pa.array(texts, pa.string())
