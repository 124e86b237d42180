"""A decoded picture: its pixels, upright, and how they map to the full size; and why there is none."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

ImageStatus = Literal["decode_error", "too_large", "unsupported"]

_RAW_HEADER = 1 << 12
"""Bytes that are not pixels, at most."""


@dataclass(frozen=True)
class Limits:
    """What may be decoded at all.

    The defaults admit the largest photographs that a phone takes (200 megapixels). While an image
    is decoded it takes up to four bytes a pixel, a progressive JPEG six, besides the result.

    Attributes:
        max_pixels: width times height, as the header tells them.
        max_bytes: length of the encoded image.
    """

    max_pixels: int = 208_000_000
    max_bytes: int = 100_000_000

    def with_raw_pixels(self) -> "Limits":
        """The same where images may also be encoded as bare pixels of up to four channels."""
        return replace(self, max_bytes=max(self.max_bytes, 4 * self.max_pixels + _RAW_HEADER))


class ImageError(Exception):
    """Bytes that give no picture; the message is one line.

    Attributes:
        status: `too_large`: above a limit, and not decoded. `unsupported`: an image, by its magic
            number, of a format that is not read here, or with a kind of pixels that has no evident
            meaning as a colour. `decode_error`: all else: no image, a truncated or damaged one.
    """

    def __init__(self, status: ImageStatus, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status: ImageStatus = status

    def __reduce__(self) -> tuple[type["ImageError"], tuple[ImageStatus, str]]:
        return ImageError, (self.status, str(self))  # else `pickle` would leave out the status


@dataclass(frozen=True)
class Picture:
    """An upright picture, perhaps smaller than its file says.

    Pixel i of an axis covers the full-size coordinates `scale * i + offset` to
    `scale * (i + 1) + offset`. The offset is not zero where the file's sides are no multiple of the
    scale and the orientation turned the ragged edge to the left or the top.

    Attributes:
        pixels: (h, w, 3) uint8, RGB, contiguous.
        width: of the full-size upright image, in pixels.
        height: of the full-size upright image, in pixels.
        scale: 1, 2, 4 or 8 pixels of the full size for each pixel here.
        offset: x and y, in full-size pixels, each in -7..0.
        note: what is wrong with the file, although no pixel is missing; None: nothing.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    scale: int
    offset: tuple[int, int]
    note: str | None = None

    def to_full(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Carry points (..., 2), x and y in pixels of this picture, to the full size."""
        return points * np.float32(self.scale) + np.asarray(self.offset, np.float32)

    def from_full(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Carry points (..., 2), x and y in pixels of the full size, to this picture."""
        return (points - np.asarray(self.offset, np.float32)) / np.float32(self.scale)

    def boxes_to_full(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Carry boxes (n, 4), x, y, width and height, to the full size, and clip them to it."""
        corners = self.to_full(np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))
        low, high = np.clip(corners, 0, np.array([self.width, self.height], np.float32))
        return np.concatenate([low, high - low], axis=1)


class Turn(NamedTuple):
    """What makes an EXIF orientation upright: transpose first, then mirror along x and y."""

    transpose: bool
    flip_x: bool
    flip_y: bool


TURNS = {
    1: Turn(False, False, False),
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}
_FLIP_CODES = {(True, False): 1, (False, True): 0, (True, True): -1}


@dataclass(frozen=True)
class Stored:
    """A picture as its file holds it: reduced, but not turned; `size` is the full one."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    scale: int
    turn: Turn


def upright(stored: Stored, note: str | None = None) -> Picture:
    """Turn a stored picture; its geometry follows the pixels."""
    pixels, (width, height), turn = stored.pixels, stored.size, stored.turn
    if turn.transpose:
        pixels = cv2.transpose(pixels).astype(np.uint8, copy=False)
        width, height = height, width
    if turn.flip_x or turn.flip_y:
        code = _FLIP_CODES[turn.flip_x, turn.flip_y]
        pixels = cv2.flip(pixels, code).astype(np.uint8, copy=False)
    rows, columns = pixels.shape[:2]
    offset = (
        width - stored.scale * columns if turn.flip_x else 0,
        height - stored.scale * rows if turn.flip_y else 0,
    )
    return Picture(pixels, width, height, stored.scale, offset, note)
