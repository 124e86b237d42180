"""BMPs of every kind, written by hand: Pillow and OpenCV write few of them."""

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.uint8]
Named = tuple[str, bytes, Array]
"""The name of a variant, the file, and its right pixels."""

RAW, RLE8, RLE4, MASKS = 0, 1, 2, 3


def bmp(
    size: tuple[int, int],
    bits: int,
    pixels: bytes,
    compression: int = RAW,
    palette: bytes = b"",
    masks: tuple[int, ...] = (),
    top_down: bool = False,
) -> bytes:
    """A BMP with a header of 40 bytes; of 108, where the masks are four.

    Args:
        size: width and height.
        bits: a pixel.
        pixels: the rows as they stand in the file.
        compression: as in the header.
        palette: four bytes a colour.
        masks: of red, green, blue and perhaps alpha.
        top_down: the upper row comes first.
    """
    width, height = size
    header_size = 108 if len(masks) == 4 else 40
    header = struct.pack(
        "<IiiHHIIiiII",
        header_size,
        width,
        -height if top_down else height,
        1,
        bits,
        compression,
        len(pixels),
        0,
        0,
        len(palette) // 4,
        0,
    )
    header += struct.pack(f"<{len(masks)}I", *masks)
    header = header.ljust(header_size, b"\0") + palette
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + header + pixels


def bmps(picture: Array, few: Array, alpha: Array) -> Iterator[Named]:
    """All variants.

    Args:
        picture: (h, w, 3).
        few: (h, w, 3) of four colours.
        alpha: (h, w, 1).
    """
    height, width = picture.shape[:2]
    size = width, height
    bgr = picture[:, :, ::-1]
    yield "24 bits", bmp(size, 24, _rows(bgr)), picture
    yield "24 bits, top down", bmp(size, 24, _rows(bgr, False), top_down=True), picture
    core = struct.pack("<IHHHH", 12, width, height, 1, 24)
    body = core + _rows(bgr)
    yield "24 bits, OS/2", struct.pack("<2sIHHI", b"BM", 14 + len(body), 0, 0, 26) + body, picture
    yield from _palettes(few)
    yield from _sixteen(picture)
    bgra = np.dstack([bgr, alpha])
    unseen = np.dstack([bgr, np.zeros_like(alpha)])
    share = alpha / 255
    shown = np.round(picture * share + 255 * (1 - share)).astype(np.uint8)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "32 bits", bmp(size, 32, _rows(bgra)), picture
    yield "32 bits, masks", bmp(size, 32, _rows(bgra), MASKS, masks=masks[:3]), picture
    yield "32 bits, alpha", bmp(size, 32, _rows(bgra), MASKS, masks=masks), shown
    yield "32 bits, alpha 0 everywhere", bmp(size, 32, _rows(unseen), MASKS, masks=masks), picture
    ten = picture.astype(np.uint32) << 2
    words = (ten[:, :, 0] << 20 | ten[:, :, 1] << 10 | ten[:, :, 2])[:, :, None]
    tens = (0x3FF << 20, 0x3FF << 10, 0x3FF)
    yield "32 bits, masks of 10", bmp(size, 32, _rows(words), MASKS, masks=tens), picture


def _rows(samples: NDArray[np.integer], bottom_up: bool = True) -> bytes:
    """Rows (h, w, n), each filled up to four bytes."""
    packed = [row.tobytes() for row in (samples[::-1] if bottom_up else samples)]
    return b"".join(row + bytes(-len(row) % 4) for row in packed)


def _palettes(few: Array) -> Iterator[Named]:
    height, width = few.shape[:2]
    size = width, height
    image = Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    index = np.asarray(image)
    rgb = np.array((image.getpalette("RGB") or [])[:12], np.uint8).reshape(4, 3)
    palette = np.pad(rgb[:, ::-1], ((0, 0), (0, 1))).tobytes()
    even = np.pad(index, ((0, 0), (0, width % 2)))
    nibbles = even[:, ::2] << 4 | even[:, 1::2]
    yield "palette, 8 bits", bmp(size, 8, _rows(index), palette=palette), few
    yield "palette, 4 bits", bmp(size, 4, _rows(nibbles), palette=palette), few
    yield "palette, RLE of 8 bits", bmp(size, 8, _runs(index), RLE8, palette), few
    four = _runs(index * 0x11)
    yield "palette, RLE of 4 bits", bmp(size, 4, four, RLE4, palette), few
    light = (index > 1).astype(np.uint8)
    shown = (255 * light)[:, :, None].repeat(3, axis=2)
    black_white = bytes([0, 0, 0, 0, 255, 255, 255, 0])
    bits = np.packbits(light, axis=1)
    yield "black and white, 1 bit", bmp(size, 1, _rows(bits), palette=black_white), shown
    yield "black and white, 8 bits", bmp(size, 8, _rows(light), palette=black_white), shown
    grey = np.repeat(np.arange(256, dtype=np.uint8), 4).tobytes()
    levels = np.ascontiguousarray(few[:, :, 0])
    shown = levels[:, :, None].repeat(3, axis=2)
    yield "grey, 8 bits", bmp(size, 8, _rows(levels), palette=grey), shown


def _runs(index: Array) -> bytes:
    """Runs of one pixel, each row with its end."""
    rows = (b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in index[::-1])
    return b"".join(rows)[:-2] + b"\0\1"


def _sixteen(picture: Array) -> Iterator[Named]:
    height, width = picture.shape[:2]
    size = width, height
    deep = picture.astype(np.uint16)
    for name, bits, compression in (
        ("16 bits", (5, 5, 5), RAW),
        ("16 bits, masks 555", (5, 5, 5), MASKS),
        ("16 bits, masks 565", (5, 6, 5), MASKS),
        ("16 bits, masks 444", (4, 4, 4), MASKS),
    ):
        shifts = (bits[1] + bits[2], bits[2], 0)
        levels = [deep[:, :, i] >> (8 - bits[i]) for i in range(3)]
        red, green, blue = (level << shift for level, shift in zip(levels, shifts, strict=True))
        masks = tuple((2**n - 1) << shift for n, shift in zip(bits, shifts, strict=True))
        exact = [level * 255.0 / (2**n - 1) for level, n in zip(levels, bits, strict=True)]
        data = bmp(
            size, 16, _rows(red | green | blue), compression, masks=masks if compression else ()
        )
        yield name, data, np.dstack(exact).round().astype(np.uint8)
