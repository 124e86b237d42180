"""A made-up imdb.mat of the real format and its tar of images, with faults of every kind planted."""

import datetime
import io
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from tests.nasty import jpeg, quadrants

PREFIX = "imdb_crop/"
KEPT = "kept"
UNNAMED = 3
"""Images in the tar that the metadata does not name."""

_TAKEN = 2000
_ROWS_OF_A_PERSON = 3


@dataclass(frozen=True)
class _Row:
    """How a row differs from a good one."""

    rule: str = KEPT
    older: int = 0
    dob: int | None = None
    face_score: float = 2.5
    second_face_score: float = np.nan
    gender: float = 1.0
    image: str = "good"
    copy_of: int = 0
    """So many rows before is the row with the same bytes."""


_FAULTY = (
    _Row("duplicate", older=1, copy_of=1),
    _Row("no_face", face_score=-np.inf),
    _Row("no_face", face_score=np.nan, gender=np.nan, dob=0),
    _Row("low_face_score", face_score=0.9),
    _Row("second_face", second_face_score=1.5),
    _Row("unknown_gender", gender=np.nan),
    _Row("impossible_age", dob=0),
    _Row("impossible_age", dob=30),
    _Row("impossible_age", older=-100),
    _Row("impossible_age", older=100),
    _Row("missing_image", image="missing"),
    _Row("unreadable_image", image="truncated"),
    _Row("unreadable_image", image="text"),
    _Row("unreadable_image", image="empty"),
    _Row("too_small", image="small"),
    _Row("duplicate_conflict"),
    _Row("duplicate_conflict", older=10, copy_of=1),
)
ROUND = 50
_ROUND = (
    _Row(),
    *_FAULTY,
    *[_Row(second_face_score=-1.0, gender=0.0)] * (ROUND - 1 - len(_FAULTY)),
)


@dataclass(frozen=True)
class MadeImdb:
    """What was made.

    Attributes:
        metadata: imdb.mat.
        tar: imdb_crop.tar; its names begin with `PREFIX`, which the metadata leaves out.
        rules: the rule that must drop each row; `KEPT`: none.
    """

    metadata: Path
    tar: Path
    rules: list[str]

    @property
    def counts(self) -> Counter[str]:
        """Rows by rule."""
        return Counter(self.rules)


def make_imdb(folder: Path, images: Sequence[bytes], rounds: int) -> MadeImdb:
    """Write imdb.mat and imdb_crop.tar.

    Args:
        folder: for both.
        images: good JPEGs, used again and again, each time as other bytes.
        rounds: of `ROUND` rows; each has all faults.
    """
    rows = _ROUND * rounds
    made = MadeImdb(folder / "imdb.mat", folder / "imdb_crop.tar", [row.rule for row in rows])
    with made.metadata.open("wb") as file:
        savemat(file, {"imdb": _fields(rows)}, oned_as="row")
    with tarfile.open(made.tar, "w") as tar:
        for number in range(UNNAMED):
            _add(tar, f"{PREFIX}00/nobody{number}.jpg", images[0])
        for number, row in enumerate(rows):
            if row.image != "missing":
                _add(tar, PREFIX + _path(number), _content(number, row, images))
    return made


def with_comment(image: bytes, comment: str) -> bytes:
    """The same picture as other bytes: a JPEG with a comment behind its first marker."""
    text = comment.encode()
    return image[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + image[2:]


def _fields(rows: Sequence[_Row]) -> dict[str, Any]:
    count = len(rows)
    people = -(-count // _ROWS_OF_A_PERSON)
    names = [f"Person {number}" for number in range(people)]
    persons = np.arange(count) // _ROWS_OF_A_PERSON
    return {
        "dob": np.array([_dob(number, row) for number, row in enumerate(rows)], np.int32),
        "photo_taken": np.full(count, _TAKEN, np.uint16),
        "full_path": _cells([_path(number) for number in range(count)]),
        "gender": np.array([row.gender for row in rows]),
        "name": _cells([names[person] for person in persons]),
        "face_location": _cells([np.array([[1.0, 1.0, 90.0, 90.0]])] * count),
        "face_score": np.array([row.face_score for row in rows]),
        "second_face_score": np.array([row.second_face_score for row in rows]),
        "celeb_names": _cells(names),
        "celeb_id": persons + 1.0,
    }


def _dob(number: int, row: _Row) -> int:
    """Date of birth as a MATLAB datenum, 366 more than Python's count of days."""
    if row.dob is not None:
        return row.dob
    age = 20 + number // ROUND % 50 + row.older
    return datetime.date(_TAKEN - age, 5, 10).toordinal() + 366


def _path(number: int) -> str:
    person = number // _ROWS_OF_A_PERSON
    return f"{person % 100:02}/nm{person:07}_rm{number}_1970-5-10_{_TAKEN}.jpg"


def _content(number: int, row: _Row, images: Sequence[bytes]) -> bytes:
    original = number - row.copy_of
    small = jpeg(quadrants(20, 30)) if row.image == "small" else images[original % len(images)]
    image = with_comment(small, str(original))
    return {"truncated": image[: len(image) // 2], "text": b"no image", "empty": b""}.get(
        row.image, image
    )


def _cells(values: Sequence[object]) -> np.ndarray:
    cells = np.empty(len(values), object)
    cells[:] = values
    return cells


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
