"""Encoded bytes → upright RGB pixels, safely, and never more of them than are needed.

Colours are taken as they are stored: an embedded colour profile is not applied. Transparent pixels
are laid over white. Of an animation or a file of several pages, the first picture counts.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

ImageStatus = Literal["decode_error", "too_large", "unsupported"]

# Pillow warns of much that it then reads correctly; what it cannot read, it raises.
warnings.filterwarnings("ignore", module=r"PIL\.")

_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
)  # "JPEG" includes MPO, of which it is a case
_SCALES = (8, 4, 2)
_BAND_PIXELS = 1 << 20

_RGB_MODES = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"}
_ALPHA_MODES = {"LA", "PA", "RGBA", "RGBa"}
_DEEP_GREY_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}

_READ_MAGIC = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"GIF8", "GIF"),
)
_OTHER_MAGIC = (
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypheim", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftypcrx ", "Canon raw"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\x01\0", "icon"),
    (0, b"icns", "icon"),
    (0, b"DDS ", "DirectDraw"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"qoif", "QOI"),
    (0, b"P5\n", "PNM"),
    (0, b"P6\n", "PNM"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF-", "PDF"),
    (128, b"DICM", "DICOM"),
)


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
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    scale: int
    offset: tuple[int, int]

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


def decode(data: bytes, limits: Limits, at_least: int | None = None) -> Picture:
    """Decode an image of one of the formats JPEG, PNG, WebP, BMP, TIFF and GIF.

    Args:
        data: The encoded image.
        limits: What is refused before any pixel is decoded.
        at_least: Pixels that the longer side must keep; the picture is reduced 8, 4 or 2 times
            where that leaves as many. None keeps the full size. JPEGs are decoded at the reduced
            size; other formats are averaged over squares after decoding, to the same geometry.

    Raises:
        ImageError: The bytes give no picture. Nothing else is raised, whatever they hold.
    """
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"{len(data)} bytes; the limit is {limits.max_bytes}")
    # Pillow's own check is the earliest: for WebP it comes before the decoder allocates its canvas.
    # It refuses what is above twice this number.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels / 2  # type: ignore[assignment]
    try:
        return _upright(_load(data, at_least))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        size = str(error).partition(" exceeds")[0]
        raise ImageError("too_large", f"{size}; the limit is {limits.max_pixels}") from error
    except MemoryError as error:
        raise ImageError("too_large", "not enough memory to decode the image") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    # Pillow's parsers let errors of many kinds through (OSError, SyntaxError, ValueError, KeyError,
    # struct.error, zlib.error, ...); for hostile bytes no list of them would be complete.
    except Exception as error:
        raise ImageError(
            "decode_error", f"damaged image: {error or type(error).__name__}"
        ) from error


class _Turn(NamedTuple):
    """What makes an EXIF orientation upright: transpose first, then mirror along x and y."""

    transpose: bool
    flip_x: bool
    flip_y: bool


_TURNS = {
    1: _Turn(False, False, False),
    2: _Turn(False, True, False),
    3: _Turn(False, True, True),
    4: _Turn(False, False, True),
    5: _Turn(True, False, False),
    6: _Turn(True, True, False),
    7: _Turn(True, True, True),
    8: _Turn(True, False, True),
}
_FLIP_CODES = {(True, False): 1, (False, True): 0, (True, True): -1}


@dataclass(frozen=True)
class _Stored:
    """A picture as its file holds it: reduced, but not turned; `size` is the full one."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    scale: int
    turn: _Turn


def _load(data: bytes, at_least: int | None) -> _Stored:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        size = image.size
        scale = _scale(size, at_least)
        drafted = _draft(image, scale)
        image.load()
        return _Stored(_rgb_array(image, scale // drafted), size, scale, _turn(image))


def _scale(size: tuple[int, int], at_least: int | None) -> int:
    """The largest reduction that leaves the longer side its pixels; sizes are rounded up."""
    if at_least is None:
        return 1
    return next((scale for scale in _SCALES if -(-max(size) // scale) >= at_least), 1)


def _draft(image: Image.Image, scale: int) -> int:
    """Let the JPEG decoder reduce the picture, up to `scale` times; how many times it will."""
    width, height = image.size
    drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
    return 1 if drafted is None else round(width / drafted[1][2])


def _turn(image: Image.Image) -> _Turn:
    """The turn of a loaded image; broken metadata is no reason to refuse the pixels."""
    try:
        return _TURNS[image.getexif()[ExifTags.Base.Orientation]]
    except Exception:
        return _TURNS[1]


def _rgb_array(image: Image.Image, factor: int) -> NDArray[np.uint8]:
    """The pixels as (h, w, 3) RGB, averaged over squares of `factor`.

    It goes through the image in bands, so that converting a large one takes little memory.
    """
    width, height = image.size
    pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    band_height = max(1, _BAND_PIXELS // (width * factor)) * factor
    for top in range(0, height, band_height):
        band = _rgb(image.crop((0, top, width, min(top + band_height, height))))
        if factor > 1:
            band = band.reduce(factor)
        pixels[top // factor : top // factor + band.height] = np.asarray(band)
    return pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY_MODES:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _RGB_MODES | _ALPHA_MODES:
        raise ImageError("unsupported", f"pixels of the kind {image.mode} are not supported")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(stored: _Stored) -> Picture:
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
    return Picture(pixels, width, height, stored.scale, offset)


def _unidentified(data: bytes) -> ImageError:
    """Why Pillow sees none of our formats in the bytes."""
    if not data:
        return ImageError("decode_error", "empty file")
    if name := _match(data, _READ_MAGIC):
        return ImageError("decode_error", f"damaged {name}: its header cannot be read")
    if name := _match(data, _OTHER_MAGIC) or _svg(data):
        return ImageError("unsupported", f"{name} images are not supported")
    return ImageError("decode_error", "not an image")


def _match(data: bytes, table: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for at, magic, name in table if data.startswith(magic, at)), None)


def _svg(data: bytes) -> str | None:
    start = data[:4096].lstrip()
    return "SVG" if start.startswith((b"<svg", b"<?xml")) and b"<svg" in start else None
