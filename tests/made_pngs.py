"""PNGs of every colour type and depth, written by hand: Pillow and OpenCV write few of them."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests import nasty

Array = NDArray[np.uint8]
Named = tuple[str, bytes, Array]
"""The name of a variant, the file, and its right pixels."""

_PASSES = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""Adam7: first row, first column, step of the rows, step of the columns."""
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def png(
    samples: NDArray[np.integer], depth: int, colour_type: int, interlaced: bool, *extra: bytes
) -> bytes:
    """A PNG of unfiltered rows.

    Args:
        samples: (h, w, n), each below 2**depth.
        depth: bits a sample.
        colour_type: as in the header.
        interlaced: in the seven passes of Adam7.
        extra: whole chunks before the pixels.
    """
    height, width = samples.shape[:2]
    passes = (
        [samples[top::down, left::right] for top, left, down, right in _PASSES]
        if interlaced
        else [samples]
    )
    rows = (b"\0" + _packed(row, depth) for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    chunks = [nasty.png_chunk(b"IHDR", header), *extra]
    chunks += [nasty.png_chunk(b"IDAT", zlib.compress(b"".join(rows)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, nasty.png_chunk(b"IEND", b"")])


def _packed(row: NDArray[np.integer], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits.ravel()).tobytes()


def pngs(picture: Array, few: Array, alpha: Array) -> Iterator[Named]:
    """All variants.

    Args:
        picture: (h, w, 3).
        few: (h, w, 3) of four colours.
        alpha: (h, w, 1).
    """
    for interlaced in (False, True):
        for name, data, expected in _plain(picture, few, alpha, interlaced):
            yield f"{name}, interlaced" if interlaced else name, data, expected
    yield "animated", nasty.animated(picture, "PNG"), picture
    long = b"Comment\0" + bytes(2_000_000).replace(b"\0", b"x")
    profile = b"profile\0\0" + zlib.compress(bytes(2_000_000))
    wrong = nasty.png_chunk(b"tEXt", b"Comment\0text")[:-4] + bytes(4)
    for name, chunk in (
        ("text above 1 MB", nasty.png_chunk(b"tEXt", long)),
        ("profile above 1 MB", nasty.png_chunk(b"iCCP", profile)),
        ("wrong checksum of a text", wrong),
    ):
        yield name, png(picture, 8, RGB, False, chunk), picture


def _plain(picture: Array, few: Array, alpha: Array, interlaced: bool) -> Iterator[Named]:
    grey = picture[:, :, 1:2]
    share = alpha / 255
    for depth in (1, 2, 4, 8, 16):
        samples = _deep(grey, depth)
        shown = (samples.astype(float) * 255 / (2**depth - 1)).round().astype(np.uint8)
        shown = shown.repeat(3, axis=2) if depth < 16 else grey.repeat(3, axis=2)
        yield f"grey, {depth} bits", png(samples, depth, GREY, interlaced), shown
        key = samples[0, 0]
        chunk = nasty.png_chunk(b"tRNS", struct.pack(">H", *key.tolist()))
        hidden = np.where(samples == key, 255, shown).astype(np.uint8)
        yield (
            f"grey, {depth} bits, colour key",
            png(samples, depth, GREY, interlaced, chunk),
            hidden,
        )
    for depth in (8, 16):
        samples = _deep(few, depth)
        yield f"RGB, {depth} bits", png(_deep(picture, depth), depth, RGB, interlaced), picture
        key = samples[0, 0]
        chunk = nasty.png_chunk(b"tRNS", struct.pack(">HHH", *key.tolist()))
        hidden = np.where((samples == key).all(axis=2, keepdims=True), 255, few).astype(np.uint8)
        yield f"RGB, {depth} bits, colour key", png(samples, depth, RGB, interlaced, chunk), hidden
        for name, colours, type_ in (
            ("grey and alpha", grey, GREY_ALPHA),
            ("RGBA", picture, RGBA),
        ):
            both = _deep(np.dstack([colours, alpha]), depth)
            shown = np.round(colours * share + 255 * (1 - share)).astype(np.uint8)
            shown = shown.repeat(3 // shown.shape[2], axis=2)
            yield f"{name}, {depth} bits", png(both, depth, type_, interlaced), shown
    yield from _palettes(few, interlaced)


def _palettes(few: Array, interlaced: bool) -> Iterator[Named]:
    image = Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    index = np.asarray(image)[:, :, None]
    colours = bytes(image.getpalette("RGB") or [])[:12]
    palette = nasty.png_chunk(b"PLTE", colours)
    for depth in (2, 4, 8):
        yield f"palette, {depth} bits", png(index, depth, PALETTE, interlaced, palette), few
        clear = nasty.png_chunk(b"tRNS", bytes([0, 255]))
        hidden = np.where(index == 0, 255, few).astype(np.uint8)
        data = png(index, depth, PALETTE, interlaced, palette, clear)
        yield f"palette, {depth} bits, alpha", data, hidden


def _deep(samples: Array, depth: int) -> NDArray[np.integer]:
    """The samples with as many bits; the low ones of 16 are no mere repetition."""
    if depth == 16:
        return samples.astype(np.uint16) * 256 + 37
    return samples >> (8 - depth)
