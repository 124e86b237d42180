"""The gallery of a report: small and large pictures of sampled label rows, with their values."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image

from lib.images import ImageError, Picture, decode
from lib.output.reader import Output
from lib.report.doubts import Doubts
from lib.report.label_statistics import Place
from lib.report.picture import annotate
from lib.scoring.schema import NO_FACE, OK, label_schema
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.stage import Stopwatch
from lib.storage.errors import FetchError
from lib.tasks.age import AGE
from lib.tasks.under_age import under_column

LARGE, SMALL = (760, 640), (340, 340)
"""Largest width and height of the pictures, in pixels."""
LARGE_WORDS, SMALL_WORDS = 17, 22
LARGE_BYTES, SMALL_BYTES = 32_000, 9_000
"""Largest encoded pictures: quality, and then size, are reduced until they fit."""

MOST_LETTERS = 300
"""Longer names and errors are shortened in the middle."""
MOST_FACES = 12
"""Faces whose values are listed."""

_QUALITIES = (80, 65, 50, 35, 20)
_THREADS = 4


class Encoded(NamedTuple):
    """A picture as a data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Item:
    """One image of the gallery.

    Attributes:
        row: its label row.
        name: the last part of the uri.
        uri: of the image, shortened.
        error: of the image, or why it cannot be shown; empty if there is none.
        band: of the main face's age; empty without a face.
        doubts: of the main face, in words: see `Doubts.words`.
        threshold: of the probability to be younger, in years.
        small: picture with the faces and labels drawn on; None where there is no picture.
        large: the same, larger.
    """

    row: Mapping[str, Any]
    name: str
    uri: str
    error: str
    band: str
    doubts: Mapping[str, str]
    threshold: int
    small: Encoded | None
    large: Encoded | None

    @property
    def under(self) -> str:
        """Name of the column with the probability to be younger than an age; empty: not known."""
        column = under_column(self.threshold).name
        return column if self.row.get(column) is not None else ""

    @property
    def faces(self) -> Sequence[Mapping[str, Any]]:
        """The faces whose values are listed."""
        return self.row["faces"][:MOST_FACES]


def rows_at(output: Output, places: Iterable[Place]) -> list[dict[str, Any]]:
    """Read single label rows.

    Args:
        output: that the places are in.
        places: of a sample.

    Returns:
        The rows of `lib.scoring.schema`, without the distribution of ages, by age; those without an age
        last.
    """
    columns = label_schema(threshold=Doubts.of(output).threshold).names
    by_file = sorted(places, key=lambda place: (place.file.path, place.row))
    rows: list[dict[str, Any]] = []
    for file, group in groupby(by_file, key=lambda place: place.file):
        with output.open(file) as parquet:
            wanted = pa.array([place.row for place in group])
            rows += parquet.read(columns).take(wanted).to_pylist()
    return sorted(rows, key=lambda row: (*AGE.order_of(row), row["status"], row["id"]))


class Originals:
    """The pictures of label rows, read again from the archive."""

    def __init__(self, output: Output, rows: Sequence[Mapping[str, Any]]) -> None:
        """Look up their places.

        Args:
            output: that the rows are from.
            rows: as `rows_at` gives them.
        """
        self._s3 = output.storage
        self._column = output.fingerprint.get("column")
        self._places = output.places([row["id"] for row in rows])
        self._limits = output.limits
        self.doubts = Doubts.of(output)
        """Of these rows."""

    def picture(self, row: Mapping[str, Any], side: int) -> Picture:
        """Read and decode the picture of a row, with at least so many pixels on a side.

        Raises:
            FetchError: it cannot be read any more.
            ImageError: it cannot be decoded.
        """
        place = self._places.get(row["id"], pa.table({"uri": [row["uri"]]}))
        fetch = Fetch(self._limits.max_bytes, self._column, self._s3)
        fetch.setup(Stopwatch())
        (fetched,) = fetch(place).to_pylist()
        if fetched["data"] is None:
            raise FetchError(fetched["status"], fetched["error"])
        return decode(fetched["data"], self._limits, at_least=side)


def gallery(rows: Sequence[Mapping[str, Any]], originals: Originals) -> list[Item]:
    """Fetch and draw the pictures of label rows, several at a time.

    Args:
        rows: as `rows_at` gives them.
        originals: of these rows.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(lambda row: _item(row, originals), rows))


def write_annotated(
    rows: Sequence[Mapping[str, Any]], originals: Originals, fit: int, folder: Path
) -> int:
    """Write pictures with their labels drawn on as `ID.jpg`, several at a time.

    Args:
        rows: as `rows_at` gives them.
        originals: of these rows.
        fit: the longer side of a picture in pixels, at most.
        folder: created if it does not exist.

    Returns:
        Their number; images that cannot be read any more are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(row: Mapping[str, Any]) -> bool:
        try:
            picture = originals.picture(row, fit)
        except (FetchError, ImageError):
            return False
        words = max(12, fit // 60)
        annotate(picture, row["faces"], (fit, fit), words).save(
            folder / f"{row['id']:08}.jpg", quality=88
        )
        return True

    with ThreadPoolExecutor(_THREADS) as threads:
        return sum(threads.map(write, rows))


def encode(image: Image.Image, most_bytes: int) -> Encoded:
    """Encode as WebP of at most so many bytes."""
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=quality, method=3)
            if buffer.tell() <= most_bytes:
                data = base64.b64encode(buffer.getvalue()).decode()
                return Encoded(f"data:image/webp;base64,{data}", *image.size)
        image = image.reduce(2)


def shorten(text: str, most: int = MOST_LETTERS) -> str:
    """The text, or its beginning and its end where it is long."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _item(row: Mapping[str, Any], originals: Originals) -> Item:
    error, small, large = row["error"] or "", None, None
    if row["status"] in (OK, NO_FACE):
        try:
            picture = originals.picture(row, max(LARGE))
        except (FetchError, ImageError) as problem:
            error = f"it was labelled, but cannot be shown now: {problem}"
        else:
            small = encode(annotate(picture, row["faces"], SMALL, SMALL_WORDS), SMALL_BYTES)
            large = encode(annotate(picture, row["faces"], LARGE, LARGE_WORDS), LARGE_BYTES)
    return Item(
        row=row,
        name=shorten(PurePosixPath(row["uri"]).name, 80),
        uri=shorten(row["uri"]),
        error=shorten(error),
        band=AGE.band_of(row),
        doubts=originals.doubts.words(row),
        threshold=originals.doubts.threshold,
        small=small,
        large=large,
    )
