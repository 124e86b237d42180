"""A folder of files that break image pipelines, each with the status that it must get."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

QUADRANTS = {
    "upper left": (200, 30, 30),
    "upper right": (30, 180, 30),
    "lower left": (30, 30, 200),
    "lower right": (220, 220, 40),
}


_FAITHFUL: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}


def quadrants(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A picture (height, width, 3) that no turn and no mirror leaves as it is."""
    colours = np.array(list(QUADRANTS.values()), np.uint8).reshape(2, 2, 3)
    rows = np.arange(height) * 2 // height
    columns = np.arange(width) * 2 // width
    return colours[rows][:, columns]


def encoded(pixels: NDArray[np.uint8] | Image.Image, format_: str, **options: object) -> bytes:
    """The picture in a file format of Pillow's, with as little loss as the format can do."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format_, **(_FAITHFUL.get(format_, {}) | options))
    return buffer.getvalue()


def jpeg(pixels: NDArray[np.uint8] | Image.Image, **options: object) -> bytes:
    """The picture as a JPEG that loses little."""
    return encoded(pixels, "JPEG", **options)


def jpeg_turned(upright: NDArray[np.uint8], orientation: int) -> bytes:
    """A JPEG that shows the picture once a reader has applied its EXIF orientation, 1 to 8."""
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return jpeg(np.ascontiguousarray(stored), exif=exif)


def png(
    width: int, height: int, depth: int, colour_type: int, rows: list[bytes], *extra: bytes
) -> bytes:
    """A PNG of unfiltered rows, written by hand: Pillow writes no 16-bit RGB and nothing huge.

    Args:
        width: In pixels.
        height: In pixels; the rows are repeated to reach it.
        depth: Bits a channel.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        rows: Packed rows, without the filter byte.
        extra: Whole chunks to stand before the pixels.
    """
    deflate = zlib.compressobj(1)
    packed = [deflate.compress(b"\0" + rows[row % len(rows)]) for row in range(height)]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *extra,
            png_chunk(b"IDAT", b"".join([*packed, deflate.flush()])),
            png_chunk(b"IEND", b""),
        ]
    )


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_rgb16(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of 16 bits a channel; the low bytes are not those of a mere repetition."""
    deep = (pixels.astype(np.uint16) * 256 + 37).astype(">u2")
    height, width = pixels.shape[:2]
    return png(width, height, 16, 2, [row.tobytes() for row in deep])


def png_grey16(grey: NDArray[np.uint8]) -> bytes:
    """A grey PNG of 16 bits from (h, w) uint8."""
    deep = (grey.astype(np.uint16) * 256 + 37).astype(">u2")
    height, width = grey.shape
    return png(width, height, 16, 0, [row.tobytes() for row in deep])


def palette_with_alpha(pixels: NDArray[np.uint8]) -> bytes:
    """A palette PNG whose first colour, that of the upper left quadrant, is transparent."""
    image = Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    first = image.getpixel((0, 0))
    return encoded(image, "PNG", transparency=bytes(0 if i == first else 255 for i in range(4)))


def animated(pixels: NDArray[np.uint8], format_: str, **options: object) -> bytes:
    """An animation whose first frame is the picture and whose second is black."""
    black = Image.fromarray(np.zeros_like(pixels))
    return encoded(pixels, format_, save_all=True, append_images=[black], **options)


def _contents() -> dict[str, tuple[Callable[[], bytes], str]]:
    """Name → what makes the bytes, and the status expected."""
    picture = quadrants()
    plain = jpeg(picture)
    turned = {
        f"orientation_{n}.jpg": ((lambda n=n: jpeg_turned(picture, n)), "ok") for n in range(1, 9)
    }
    named = {
        name: ((lambda: plain), "ok")
        for name in (
            "with space.jpg",
            "Zoë 東京 🙂.JPG",
            "hash#1.jpeg",
            "100%25 sure.jpg",
            "two\nlines.jpg",
            os.fsdecode(b"latin1-\xe9.jpg"),
        )
    }
    return {
        **turned,
        **named,
        "empty.jpg": (lambda: b"", "decode_error"),
        "truncated.jpg": (lambda: plain[: len(plain) * 2 // 3], "decode_error"),
        "text.jpg": (lambda: b"This is no picture.\n", "decode_error"),
        "raw.jpg": (lambda: b"\0\0\0\x18ftypcrx " + bytes(64), "unsupported"),
        "cmyk.jpg": (lambda: jpeg(Image.fromarray(picture).convert("CMYK")), "ok"),
        "grey16.png": (lambda: png_grey16(picture[:, :, 0]), "ok"),
        "rgb16.png": (lambda: png_rgb16(picture), "ok"),
        "palette_alpha.png": (lambda: palette_with_alpha(picture), "ok"),
        "animated.gif": (lambda: animated(picture, "GIF"), "ok"),
        "picture.webp": (lambda: encoded(picture, "WEBP"), "ok"),
        "bomb.png": (lambda: png(30_000, 30_000, 1, 0, [bytes(3750)]), "too_large"),
        "one_pixel.png": (lambda: encoded(picture[:1, :1], "PNG"), "ok"),
        "thin.png": (lambda: encoded(quadrants(1, 20_000), "PNG"), "ok"),
    }


def make_nasty(folder: Path) -> dict[str, str]:
    """Fill the folder with nasty files.

    Returns:
        File name → the status that listing, fetching and decoding give it: "ok" for what decodes.
        Names that are no UTF-8 stand as `os.fsdecode` gives them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, (make, status) in _contents().items():
        (folder / name).write_bytes(make())
        expected[name] = status
    locked = folder / "locked.jpg"
    locked.write_bytes(jpeg(quadrants()))
    locked.chmod(0)
    # To the superuser nothing is locked.
    expected[locked.name] = "ok" if os.access(locked, os.R_OK) else "access_denied"
    return expected
