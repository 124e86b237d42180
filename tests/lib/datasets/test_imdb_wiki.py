import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from lib.common.errors import UserError
from lib.datasets.imdb_wiki import SCORED_COLUMNS, official_age, read_metadata
from lib.datasets.rules import Thresholds, first_rule

EPOCH = 719_529  # the MATLAB datenum of 1 January 1970
NAN = float("nan")


def cells(texts: list[str]) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def imdb_fields() -> dict[str, Any]:
    """Three rows as imdb.mat has them: all well, no face, and nothing known."""
    return {
        "dob": np.array([EPOCH, EPOCH + 181, 0], np.int32),
        "photo_taken": np.array([2000, 2000, 2000], np.uint16),
        "full_path": cells(["01/nm0000101_rm1_1970-1-1_2000.jpg", "02/other.jpg", ""]),
        "gender": np.array([0.0, 1.0, NAN]),
        "name": cells(["Ann Example", "Bob Example", ""]),
        "face_location": cells([np.array([[1.0, 1.0, 9.0, 9.0]])] * 3),  # type: ignore[list-item]
        "face_score": np.array([2.5, -np.inf, NAN]),
        "second_face_score": np.array([NAN, 1.5, NAN]),
        "celeb_names": cells(["Ann Example", "Bob Example"]),
        "celeb_id": np.array([1.0, 2.0, 2.0]),
    }


def mat(fields: Any, struct: str = "imdb") -> io.BytesIO:
    file = io.BytesIO()
    savemat(file, {struct: fields}, oned_as="row")
    return file


def test_rows() -> None:
    table = read_metadata(mat(imdb_fields()), "imdb.mat")
    assert table.schema == SCORED_COLUMNS
    assert table.drop_columns(["face_score", "second_face_score"]).to_pylist() == [
        {
            "path": "01/nm0000101_rm1_1970-1-1_2000.jpg",
            "age": 30,
            "gender": "female",
            "identity": "nm0000101",
            "group": None,
            "source": "imdb",
            "source_row": 0,
        },
        {
            "path": "02/other.jpg",
            "age": 30,
            "gender": "male",
            "identity": "Bob Example",
            "group": None,
            "source": "imdb",
            "source_row": 1,
        },
        {
            "path": None,
            "age": None,
            "gender": None,
            "identity": None,
            "group": None,
            "source": "imdb",
            "source_row": 2,
        },
    ]
    np.testing.assert_equal(table["face_score"].to_numpy(), [2.5, -np.inf, NAN])
    np.testing.assert_equal(table["second_face_score"].to_numpy(), [NAN, 1.5, NAN])


@pytest.mark.parametrize(
    ("dob", "year", "age"),
    [
        (EPOCH, 2000, 30),  # 1 January 1970
        (EPOCH + 180, 2000, 30),  # 30 June
        (EPOCH + 181, 2000, 30),  # 1 July
        (EPOCH + 182, 2000, 29),  # 2 July
        (EPOCH + 2 * 365 + 182, 2000, 28),  # 1 July 1972, a leap year
        (EPOCH + 2 * 365 + 183, 2000, 27),  # 2 July 1972
        (EPOCH + 365, 1970, -1),
        (367, 2015, 2014),  # 1 January of year 1
        (366, 2015, NAN),
        (0, 2015, NAN),
        (-5, 2015, NAN),
        (NAN, 2015, NAN),
        (1e12, 2015, NAN),
        (EPOCH, NAN, NAN),
    ],
)
def test_official_age(dob: float, year: float, age: float) -> None:
    np.testing.assert_equal(official_age([dob], [year]), [age])


def test_official_age_of_no_row() -> None:
    assert official_age([], []).shape == (0,)


def without(field: str) -> dict[str, Any]:
    fields = imdb_fields()
    del fields[field]
    return fields


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (mat(np.arange(3), "faces"), "holds faces, not the struct imdb or wiki"),
        (mat(np.arange(3)), "imdb in x.mat is not one struct"),
        (mat(without("dob")), "imdb in x.mat lacks dob; it has photo_taken"),
        (mat(imdb_fields() | {"gender": np.zeros(2)}), "differ in length: dob 3, .*gender 2"),
        (io.BytesIO(b""), "cannot be read as a MATLAB 5 file"),
        (io.BytesIO(b"no MATLAB file" * 100), "cannot be read as a MATLAB 5 file"),
        (io.BytesIO(mat(imdb_fields()).getvalue()[:700]), "cannot be read as a MATLAB 5 file"),
        (io.BytesIO(b" " * 124 + b"\x00\x02IM" + b"\x89HDF\r\n"), "is a MATLAB 7.3 file"),
    ],
)
def test_other_files_are_refused_in_one_line(file: io.BytesIO, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        read_metadata(file, "x.mat")
    assert "\n" not in str(refusal.value)


@pytest.mark.data
def test_the_real_wiki_metadata(shared_data: Path) -> None:
    started = time.monotonic()
    with (shared_data / "imdb_wiki" / "wiki.mat").open("rb") as file:
        table = read_metadata(file, "wiki.mat")
    dropped = Counter(first_rule(table, Thresholds()).to_pylist())
    assert time.monotonic() - started < 20

    assert dropped.pop(None) == 38_138
    assert dropped.total() == 62_328 - 38_138
    assert dropped["no_face"] == 18_016
    assert Counter(table["gender"].to_pylist()) == {"female": 12_622, "male": 47_063, None: 2_643}
    assert (~np.isnan(table["second_face_score"].to_numpy())).sum() == 4_096
    ages = table["age"].to_numpy()
    assert (ages.min(), ages.max()) == (-74, 1996)
