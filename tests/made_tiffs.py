"""TIFF files of every layout, written by hand: Pillow and OpenCV write few of them."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Compression = Literal["none", "lzw", "deflate", "packbits", "jpeg"]
Tag = tuple[int, str, tuple[int, ...]]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_TYPES = {"B": (1, 1), "H": (3, 2), "I": (4, 4)}
_CODES = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773, "jpeg": 7}
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


class Layout(NamedTuple):
    """Where the samples lie in the file, and how they are packed.

    Attributes:
        compression: of each strip or tile.
        planar: one plane of samples after the other.
        tiled: tiles of 32 × 16 pixels in place of strips of 16 rows.
        order: "<" little endian, ">" big endian.
        predictor: 2: differences along the row are stored.
    """

    compression: Compression = "none"
    planar: bool = False
    tiled: bool = False
    order: Literal["<", ">"] = "<"
    predictor: Literal[1, 2] = 1


PLAIN = Layout()


def tiff(
    samples: NDArray[Any],
    photometric: int,
    layout: Layout = PLAIN,
    extra_samples: tuple[int, ...] = (),
    tags: tuple[Tag, ...] = (),
) -> bytes:
    """A TIFF of one picture.

    Args:
        samples: (h, w, n), of any integer or float type.
        photometric: what the samples mean, as in tag 262.
        layout: how they are stored.
        extra_samples: what the samples beyond the colours mean, as in tag 338.
        tags: further tags, or others in place of those written: number, struct code B, H or I,
            values.
    """
    height, width, channels = samples.shape
    encode = _encoder(layout, photometric)
    planes = np.split(samples, channels, axis=2) if layout.planar else [samples]
    blocks = [encode(block) for plane in planes for block in _blocks(plane, layout.tiled)]
    kind = samples.dtype
    places: list[Tag] = (
        [(322, "I", (32,)), (323, "I", (16,)), (325, "I", tuple(map(len, blocks)))]
        if layout.tiled
        else [(278, "I", (16,)), (279, "I", tuple(map(len, blocks)))]
    )
    start = 8
    offsets = []
    for block in blocks:
        offsets.append(start)
        start += len(block) + len(block) % 2
    all_tags: list[Tag] = [
        (256, "I", (width,)),
        (257, "I", (height,)),
        (258, "H", (8 * kind.itemsize,) * channels),
        (259, "H", (_CODES[layout.compression],)),
        (262, "H", (photometric,)),
        (277, "H", (channels,)),
        (284, "H", (2 if layout.planar else 1,)),
        (317, "H", (layout.predictor,)),
        (339, "H", (_SAMPLE_FORMATS[kind.kind],) * channels),
        (324 if layout.tiled else 273, "I", tuple(offsets)),
        *places,
        *([(338, "H", extra_samples)] if extra_samples else []),
        *tags,
    ]
    body = b"".join(block + bytes(len(block) % 2) for block in blocks)
    magic = b"II*\0" if layout.order == "<" else b"MM\0*"
    directory = _directory(list({tag[0]: tag for tag in all_tags}.values()), start, layout)
    return magic + struct.pack(layout.order + "I", start) + body + directory


def _directory(tags: list[Tag], start: int, layout: Layout) -> bytes:
    """The image file directory that begins at byte `start`, and the values it points to."""
    order = layout.order
    entries, values = b"", b""
    room = start + 2 + 12 * len(tags) + 4
    for number, code, items in sorted(tags):
        type_, _ = _TYPES[code]
        packed = struct.pack(f"{order}{len(items)}{code}", *items)
        if len(packed) > 4:
            packed, values = struct.pack(order + "I", room + len(values)), values + packed
        entries += struct.pack(order + "HHI", number, type_, len(items)) + packed.ljust(4, b"\0")
    return struct.pack(order + "H", len(tags)) + entries + bytes(4) + values


def _blocks(plane: NDArray[Any], tiled: bool) -> Iterator[NDArray[Any]]:
    """Strips, the last one of which may be shorter; or tiles, filled up with zeros."""
    height, width = plane.shape[:2]
    for top in range(0, height, 16):
        if not tiled:
            yield plane[top : top + 16]
            continue
        for left in range(0, width, 32):
            tile = plane[top : top + 16, left : left + 32]
            fill = ((0, 16 - tile.shape[0]), (0, 32 - tile.shape[1]), (0, 0))
            yield np.pad(tile, fill)


def _encoder(layout: Layout, photometric: int) -> Callable[[NDArray[Any]], bytes]:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "none": bytes,
        "lzw": _lzw,
        "deflate": zlib.compress,
        "packbits": _packbits,
    }

    def encode(block: NDArray[Any]) -> bytes:
        if layout.compression == "jpeg":
            return _jpeg(block, photometric)
        if layout.predictor == 2:
            block = np.diff(block, axis=1, prepend=block.dtype.type(0))
        return pack[layout.compression](
            block.astype(block.dtype.newbyteorder(layout.order)).tobytes()
        )

    return encode


def _jpeg(block: NDArray[Any], photometric: int) -> bytes:
    """The samples as they are: a JPEG keeps RGB, and the YCbCr that it makes is told by the tag."""
    image = Image.fromarray(block[:, :, 0] if block.shape[2] == 1 else block)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, subsampling=0, keep_rgb=photometric == RGB)
    return buffer.getvalue()


def _packbits(data: bytes) -> bytes:
    """Runs of literal bytes only."""
    runs = (data[at : at + 128] for at in range(0, len(data), 128))
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def _lzw(data: bytes) -> bytes:
    """Codes of nine bits only: the table is cleared before it needs ten."""
    codes = []
    for at in range(0, len(data), 200):
        codes += [256, *data[at : at + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
