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

from lib.images import ImageError, Limits, pixels_of
from lib.scoring.stages.stage import Stopwatch
from lib.storage.errors import FetchError
from lib.storage.fetch import fetch
from lib.storage.options import TIMEOUT_SECONDS, StorageOptions

ImageLike = NDArray[np.uint8] | Image.Image | bytes | str | os.PathLike[str]
"""An image: uint8 (height, width, 3) RGB, a Pillow image, encoded bytes, or a path or URI. Arrays may
also be grey, (height, width) or of one channel, or have alpha as their last one."""
READS_AT_A_TIME = 16

ENCODED = pa.schema([("data", pa.large_binary()), ("status", pa.string()), ("error", pa.string())])
"""Columns of an image that was read: its bytes, or a status and an error."""


@dataclass(frozen=True)
class Reader:
    """Reads images of every kind, so that all of them are decoded by the same code afterwards.

    Attributes:
        limits: what is not read: longer files and bytes, arrays and Pillow images of more pixels.
        storage: how files are reached.
        timeout: seconds for one attempt to read a file over a network.
    """

    limits: Limits = field(default_factory=Limits)
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
        most = self.limits.max_bytes
        try:
            if isinstance(image, bytes | bytearray | memoryview):
                data = bytes(image)
                if len(data) > most:
                    return _error("too_large", f"{len(data)} bytes; the limit is {most}")
            elif isinstance(image, str | os.PathLike):
                data, _ = fetch(os.fspath(image), most, options=self.storage, timeout=self.timeout)
            else:
                data = self._encoded(image)
            return {"data": data}
        except (FetchError, ImageError) as error:
            return _error(error.status, str(error))
        # Pillow raises errors of many kinds; an image of the user's never fails a batch.
        except Exception as error:
            return _error("unsupported", f"{_described(image)} is no image: {error}")

    def _encoded(self, image: Any) -> bytes:
        """The upright pixels of an array or a Pillow image, without loss and without any metadata."""
        array = None if isinstance(image, Image.Image) else _array(image)
        width, height = image.size if array is None else array.shape[1::-1]
        if width * height > self.limits.max_pixels:
            raise ImageError(
                "too_large", f"{width}x{height} pixels; the limit is {self.limits.max_pixels}"
            )
        file = io.BytesIO()
        Image.fromarray(pixels_of(image) if array is None else array).save(file, "TIFF")
        return file.getvalue()


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


def _array(image: Any) -> NDArray[np.uint8]:
    """An array of which Pillow makes an image."""
    array = np.asarray(image)
    channels = array.shape[2:]
    if array.dtype != np.uint8 or not array.size or channels not in ((), (1,), (2,), (3,), (4,)):
        raise TypeError("arrays must be uint8 (height, width, 3), RGB")
    return array[:, :, 0] if channels == (1,) else array


def _described(image: Any) -> str:
    if isinstance(image, np.ndarray):
        return f"an array of {image.dtype} {image.shape}"
    return f"a value of the type {type(image).__name__}"


def _error(status: str, error: str) -> dict[str, Any]:
    return {"status": status, "error": " ".join(error.split())}
