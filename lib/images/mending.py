"""Damage that costs no pixel: chunks of a PNG that are not needed, the missing end of a JPEG.

It is looked for where decoding has failed, and in JPEGs whose last bytes are no end marker, so that sound
files pay nothing for it.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from lib.images.signatures import format_of

NO_END = "the file lacks its end marker; all pixels are there"

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_AS_TEXT = b"Raw profile type exif\0"
_LONGEST_TEXT = 1 << 16

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_EOI = 0xD9
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_COEFFICIENTS = 64
_BAND = 64


class Mended(NamedTuple):
    """The same picture in bytes that a decoder accepts.

    Attributes:
        data: the encoded image.
        note: what was wrong, where users should know of it.
    """

    data: bytes
    note: str | None


def note_on(data: bytes) -> str | None:
    """What is wrong with a file that has been decoded; None: nothing."""
    return NO_END if data.startswith(_JPEG_START) and _lacks_end(data) else None


def mend(data: bytes) -> Mended | None:
    """Mend a file that could not be decoded; None where nothing here helps. It raises nothing."""
    match format_of(data):
        case "PNG":
            bare = _bare_png(data)
            return None if bare == data else Mended(bare, None)
        case "JPEG" if _lacks_only_its_end(data):
            return Mended(data + _JPEG_END, NO_END)
    return None


def _bare_png(data: bytes) -> bytes:
    """The PNG without the chunks that neither make nor turn its picture.

    Pillow refuses the whole file for a text or profile above 1 MB, and for a wrong checksum anywhere.
    """
    kept = (chunk for chunk in _png_chunks(data) if _is_needed(chunk))
    return _PNG_MAGIC + b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = len(_PNG_MAGIC)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at : at + length + 12]
        at += length + 12


def _is_needed(chunk: bytes) -> bool:
    kind = chunk[4:8]
    if kind in _PNG_PIXELS:
        return True
    text = kind in _PNG_TEXTS and chunk.startswith(_EXIF_AS_TEXT, 8)
    if len(chunk) > _LONGEST_TEXT or not (text or kind == b"eXIf"):
        return False
    return zlib.crc32(chunk[4:-4]) == struct.unpack(">I", chunk[-4:])[0]


def _lacks_end(data: bytes) -> bool:
    """Whether a JPEG has no end marker; what follows one is no part of the picture."""
    return not data.endswith(_JPEG_END) and all(kind != _JPEG_EOI for kind, _ in _segments(data))


def _lacks_only_its_end(data: bytes) -> bool:
    """Whether all pixels of a JPEG without an end marker are there.

    They are, if the picture does not depend on what follows the file. The bits that are tried begin
    with 00, 01, 10 and 11, so that no code of the picture goes on with all of them alike.
    """
    if not _lacks_end(data) or not _has_all_scans(data):
        return False
    start = data.removesuffix(b"\xff")  # half of the marker
    try:
        checksums = (
            _checksum(start + _tail(bits)) for bits in (b"\0", b"\x55", b"\xaa", b"\xff\0")
        )
        first = next(checksums)
        return all(checksum == first for checksum in checksums)
    except Exception:  # Pillow raises errors of any kind for damaged files
        return False


def _tail(bits: bytes) -> bytes:
    """Bits, an end, and the restart markers for which a decoder may wait."""
    restarts = (bytes([0xFF, 0xD0 + n]) + 8 * bits for n in range(8))
    return 8 * bits + b"".join(restarts) + _JPEG_END


def _checksum(data: bytes) -> int:
    """Of all pixels at their full size."""
    checksum = 0
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        width, height = image.size
        for top in range(0, height, _BAND):
            band = image.crop((0, top, width, min(top + _BAND, height)))
            checksum = zlib.crc32(band.tobytes(), checksum)
    return checksum


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans give every coefficient of every component in full precision."""
    missing: dict[int, set[int]] = {}
    for kind, body in _segments(data):
        if kind in _JPEG_FRAMES:
            missing = {id_: set(range(_COEFFICIENTS)) for id_ in body[6::3]}
        elif kind == _JPEG_SCAN and len(body) >= 4:
            *components, low, high, precision = body[1:]
            for id_ in components[::2]:
                if precision & 15 == 0:
                    missing.get(id_, set()).difference_update(range(low, high + 1))
    return bool(missing) and not any(missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each segment of a JPEG up to its end marker; coded pixels are passed over."""
    at = len(_JPEG_START)
    while found := _JPEG_MARKER.search(data, at):
        at = found.end()
        kind = data[at - 1]
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        yield kind, body
        if kind == _JPEG_EOI:
            return
        at += 2 + len(body)
