"""Images as Python programs and Ray Datasets hold them → encoded bytes."""

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from lib.images import Limits, pixels_of
from lib.scoring.stages.stage import Stopwatch
from lib.storage.errors import FetchError
from lib.storage.fetch import fetch
from lib.storage.options import TIMEOUT_SECONDS, StorageOptions

ImageLike = NDArray[np.uint8] | Image.Image | bytes | str | os.PathLike[str]
"""An image: uint8 (height, width, 3) RGB, a Pillow image, encoded bytes, or a path or URI."""
READS_AT_A_TIME = 16

ENCODED = pa.schema([("data", pa.large_binary()), ("status", pa.string()), ("error", pa.string())])
"""Columns of an image that was read: its bytes, or a status and an error."""


@dataclass(frozen=True)
class Reader:
    """Reads images of every kind, so that all of them are decoded by the same code afterwards.

    Attributes:
        max_bytes: a file of more bytes is not read.
        storage: how files are reached.
        timeout: seconds for one attempt to read a file over a network.
    """

    max_bytes: int = Limits.max_bytes
    storage: StorageOptions = field(default_factory=StorageOptions)
    timeout: float = TIMEOUT_SECONDS

    def table(self, images: Sequence[Any]) -> pa.Table:
        """Read images, several at a time; gives `ENCODED`, a row for each image, whatever it is."""
        with ThreadPoolExecutor(READS_AT_A_TIME, "read") as threads:
            return pa.Table.from_pylist(list(threads.map(self._row, images)), schema=ENCODED)

    def _row(self, image: Any) -> dict[str, Any]:
        if isinstance(image, Mapping):  # as Hugging Face's datasets have it
            image = image.get("bytes") or image.get("path")
        if image is None:
            return _error("not_found", "there is no image in this row")
        if isinstance(image, bytes | bytearray | memoryview):
            return {"data": bytes(image)}
        try:
            if isinstance(image, str | os.PathLike):
                data, _ = fetch(
                    os.fspath(image), self.max_bytes, options=self.storage, timeout=self.timeout
                )
                return {"data": data}
            return {"data": _encoded(image)}
        except FetchError as error:
            return _error(error.status, str(error))
        # Pillow raises errors of many kinds; an image of the user's never fails a batch.
        except Exception as error:
            return _error("unsupported", f"{_described(image)} is no image: {error}")


@dataclass
class ReadImages:
    """Adds `ENCODED` of the images in a column, and packs the columns of the batch into `row`.

    Attributes:
        column: holds bytes, paths, URIs, arrays, or structs of `bytes` and `path`.
        reader: reads the images.
    """

    column: str
    reader: Reader = field(default_factory=Reader)

    drops: ClassVar = ()
    gives: ClassVar = ("row", *ENCODED.names)

    @property
    def needs(self) -> Sequence[str]:
        """See `Stage`."""
        return [self.column]

    def setup(self, watch: Stopwatch) -> None:
        """Load nothing."""
        self._watch = watch

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Read the images of all rows."""
        with self._watch("fetch"):
            encoded = self.reader.table([value.as_py() for value in batch[self.column]])
        return encoded.append_column("row", batch.to_struct_array())


@dataclass
class UnpackRow:
    """Puts the columns in `row`, which the user's rows had, before the labels."""

    needs: ClassVar = ("row",)
    drops: ClassVar = ("row",)
    gives: ClassVar = ()

    def setup(self, watch: Stopwatch) -> None:
        """Load nothing."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Unpack all rows."""
        row = batch["row"]
        columns = dict(zip((f.name for f in row.type), row.flatten(), strict=True))
        labels = batch.drop_columns(["row"])
        return pa.table(columns | {name: labels[name] for name in labels.column_names})


def _encoded(image: Any) -> bytes:
    """The upright pixels of an array or a Pillow image, without loss and without any metadata."""
    if isinstance(image, Image.Image):
        pixels = pixels_of(image)
    else:
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8:
            raise TypeError("arrays must be uint8 (height, width, 3), RGB")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    return file.getvalue()


def _described(image: Any) -> str:
    if isinstance(image, np.ndarray):
        return f"an array of {image.dtype} {image.shape}"
    return f"a value of the type {type(image).__name__}"


def _error(status: str, error: str) -> dict[str, Any]:
    return {"status": status, "error": " ".join(error.split())}
