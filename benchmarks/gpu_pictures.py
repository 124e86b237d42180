"""Pictures for `benchmarks.gpu`: photographs, face crops and labelled faces, all from one portrait."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

DIFFERENT = 50
"""Pictures that differ; the rest are links to these."""
WIDTH, HEIGHT = 1600, 1200
CHIP = 200
ROWS_OF_GROUP = 512


def write_pictures(
    folder: Path, photographs: int, chips: int, faces: int, given: Path | None
) -> None:
    """Write `photographs/`, `few/`, `chips/` and `faces/` into the folder.

    Args:
        folder: of the run.
        photographs: how many; a twelfth of them in `few/`, too.
        chips: face crops.
        faces: rows of the table.
        given: a folder of JPEGs to take for photographs; None: they are made.
    """
    made = (
        [file.read_bytes() for file in sorted(given.rglob("*.jp*g"))[:1000]]
        if given
        else [_jpeg(picture) for picture in _photographs()]
    )
    _repeat(made, folder / "photographs", photographs)
    _repeat(made, folder / "few", photographs // 12)
    crops = [_jpeg(picture) for picture in _chips()]
    _repeat(crops, folder / "chips", chips)
    _write_faces(folder / "faces", crops, faces)


def _portrait() -> NDArray[np.uint8]:
    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return np.asarray(cv2.imread(path), np.uint8)


def _photographs() -> Iterator[NDArray[np.uint8]]:
    """A person somewhere before a rough background, as much to decode as in a photograph.

    The faces are large enough to be cut out of the picture that is looked at: of 40 real photographs none
    had to be decoded again, at its full size, for its faces.
    """
    rng, portrait = np.random.default_rng(0), _portrait()
    for _ in range(DIFFERENT):
        rough = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        picture = cv2.resize(rough, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        size = rng.uniform(1.4, 1.9)
        person = cv2.resize(portrait, None, fx=size, fy=size)
        top = rng.integers(0, HEIGHT - person.shape[0] + 1)
        left = rng.integers(0, WIDTH - person.shape[1] + 1)
        picture[top : top + person.shape[0], left : left + person.shape[1]] = person
        yield np.asarray(picture, np.uint8)


def _chips() -> Iterator[NDArray[np.uint8]]:
    """The face, a little differently each time."""
    rng, portrait = np.random.default_rng(1), _portrait()
    for _ in range(DIFFERENT):
        top, left = rng.integers(80, 120), rng.integers(140, 180)
        crop = portrait[top : top + 230, left : left + 230]
        yield np.asarray(cv2.resize(crop, (CHIP, CHIP)), np.uint8)


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _repeat(files: list[bytes], folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        file = folder / f"{number:05}.jpg"
        if number < len(files):
            file.write_bytes(files[number])
        else:
            file.hardlink_to(folder / f"{number % len(files):05}.jpg")


def _write_faces(folder: Path, crops: list[bytes], count: int) -> None:
    """The columns of jobs/prepare.py, with ages and genders by chance."""
    rng = np.random.default_rng(2)
    for split, rows in (("train", count), ("val", max(32, count // 20)), ("test", 32)):
        table = pa.table(
            {
                "image": [crops[number % len(crops)] for number in range(rows)],
                "age": rng.integers(5, 95, rows).astype(np.int16),
                "gender": np.array(["female", "male"])[rng.integers(0, 2, rows)],
                "group": ["a"] * rows,
                "source": ["made"] * rows,
                "source_row": range(rows),
                "sha256": [f"{split}{number:059}" for number in range(rows)],
            }
        )
        target = folder / f"split={split}"
        target.mkdir(parents=True)
        pq.write_table(table, target / "part-0.parquet", row_group_size=ROWS_OF_GROUP)
