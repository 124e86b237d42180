"""Members of a tar read in place, by byte ranges that several tasks can read independently.

A range begins anywhere. Its reader looks for the next header (512-byte aligned, correct checksum; V7
tars have no magic) and follows the chain of headers from there for `_TRUST` bytes. If that chain is
sound, the range is read from it. If it breaks (the header belongs to a tar inside the tar, or the archive
is damaged), the chain is followed from the beginning of the archive, which is slower and always correct.

Limitation: a tar inside the tar that extends more than `_TRUST` bytes behind the beginning of a range, or
lacks its end mark. Its members count as members of the archive until, in the first case, its end raises
`TarError`. Read such an archive as a single range.

The format: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format" and
"Storing Sparse Files".
"""

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

import numpy as np

from lib.common.errors import UserError

CHUNK = 8 << 20
"""Bytes that `buffered` fetches at once."""

_BLOCK = 512
_TRUST = 16 << 20  # bytes over which a chain of headers must be sound
_LONGEST_EXTENSION = (
    1 << 20
)  # bytes of an extended header, far more than a path and some numbers need

_SCAN = 1 << 20  # bytes that are searched for a header at once

_MAGIC_PLACE = 257
_MAGIC = b"ustar"
_CHECKSUM = slice(148, 156)
_CHECKSUM_BYTES = np.frombuffer(b"01234567 \0", np.uint8)
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes → the program that wrote them."""

FILE, HARD_LINK, SPARSE_FILE = "file", "hard link", "sparse file"
_NO_MEMBERS = b"5Dg"
"""Folders, and headers that hold for all members behind them."""
_REGULAR = b"0\x007"
_KINDS = {
    b"1": HARD_LINK,
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"6": "pipe",
    b"M": "part of a file of another volume",
    b"S": SPARSE_FILE,
    b"V": "label of a volume",
}
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes: whatever their size field says
_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS_PAX = b"L", b"K", b"x", b"X"
_EXTENSIONS = _LONG_NAME + _LONG_LINK + _PAX + _SOLARIS_PAX
_GNU_SPARSE = b"S"
_MAP_GOES_ON, _MAP_BLOCK_GOES_ON = 482, 504
"""Bytes of a sparse header, and of the blocks behind it, that tell whether another block follows."""


class TarError(UserError):
    """The archive is damaged, cut off or of another format.

    Attributes:
        reason: in words.
        offset: byte of the archive at which it cannot be understood.
    """

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason, offset)  # the arguments, so that the error can be pickled
        self.reason = reason
        self.offset = offset

    def __str__(self) -> str:
        return f"the tar cannot be read from byte {self.offset}: {self.reason}"


class Member(NamedTuple):
    """A member of the archive, whatever its type; no folder.

    Attributes:
        name: path in the archive.
        offset: byte behind its header; of a `FILE` its content begins here. Greater than that of all
            members before it.
        size: bytes of its content; 0 for what has none.
        kind: `FILE`, `HARD_LINK`, `SPARSE_FILE` (the content is not in one piece), or another type in
            words.
        target: of a hard link: the name of the member that has the content.
    """

    name: str
    offset: int
    size: int
    kind: str = FILE
    target: str = ""


def buffered(file: io.RawIOBase) -> io.BufferedReader:
    """Wrap an unbuffered file, such as a `pyarrow.NativeFile`, so that it is fetched in large chunks.

    Read each member before asking `iter_members` for the next one: header and content then come from
    the same chunk, and each chunk is fetched once.
    """
    return io.BufferedReader(file, CHUNK)


def iter_members(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """Yield the members whose header begins in [start, end), in order; folders left out.

    Where extended headers precede the header (long names, PAX), the first of them counts. So ranges
    that cover an archive without overlap yield each of its members once.

    Args:
        file: the tar, uncompressed and seekable; may be moved between two members.
        start: byte of the archive.
        end: byte of the archive; None: its end.

    Raises:
        TarError: after the members before it, where the archive is damaged, compressed, ends without
            its end mark, or goes on behind it.
    """
    archive = _Archive(file)
    # The last range also checks the end mark, which a truncated tar lacks.
    stop = end if end is not None and end < archive.length else sys.maxsize
    first = _synchronise(archive, start, stop)
    if first is None:
        return
    for position, member in _walk(archive, first, stop):
        if position >= start and member is not None:
            yield member


class _Archive:
    """A file with a known length, read by position."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.length = file.seek(0, os.SEEK_END)

    def read(self, position: int, size: int) -> bytes:
        """Read up to `size` bytes, fewer only at the end of the file."""
        self._file.seek(position)
        return self._file.read(size)


@dataclass(frozen=True)
class _Header:
    """One header block."""

    position: int
    kind: bytes
    name: str
    size: int
    link: str
    map_blocks: int = 0

    @property
    def data(self) -> int:
        """Where the content begins."""
        return self.position + _BLOCK * (1 + self.map_blocks)

    @property
    def data_end(self) -> int:
        """Where the content ends."""
        return self.data + (0 if self.kind in _WITHOUT_DATA else self.size)

    @property
    def following(self) -> int:
        """Where the next header begins."""
        return -(-self.data_end // _BLOCK) * _BLOCK


def _synchronise(archive: _Archive, start: int, stop: int) -> int | None:
    """Find a header from which the members in [start, stop) can be reached; None: there are none.

    The search begins early enough before `start` to find an extended header there.
    """
    begin = max(0, start - _LONGEST_EXTENSION) // _BLOCK * _BLOCK
    if begin == 0:
        return 0
    candidate = _find_header(archive, begin, stop)
    if candidate is None or _is_sound(archive, candidate):
        return candidate
    return 0


def _find_header(archive: _Archive, begin: int, stop: int) -> int | None:
    """Find the first block that begins in [begin, stop) and could be a header."""
    for chunk_start in range(begin, min(stop, archive.length), _SCAN):
        chunk = archive.read(chunk_start, _SCAN)
        for block in _blocks_with_checksum(chunk):
            position = chunk_start + block
            if position < stop and _could_be_header(archive, position):
                return position
    return None


def _blocks_with_checksum(chunk: bytes) -> Iterator[int]:
    """Find the blocks that have octal digits where headers have their checksum."""
    whole = len(chunk) // _BLOCK
    blocks = np.frombuffer(chunk, np.uint8, whole * _BLOCK).reshape(whole, _BLOCK)
    field = blocks[:, _CHECKSUM]
    found = np.isin(field, _CHECKSUM_BYTES).all(axis=1) & (field >= ord("0")).any(axis=1)
    yield from (np.flatnonzero(found) * _BLOCK).tolist()


def _could_be_header(archive: _Archive, position: int) -> bool:
    try:
        _header(archive, position)
    except TarError:
        return False
    return True


def _is_sound(archive: _Archive, position: int) -> bool:
    """Whether the chain of headers from here holds for `_TRUST` bytes or to a proper end."""
    try:
        for _ in _walk(archive, position, position + _TRUST):
            pass
    except TarError:
        return False
    return True


def _walk(archive: _Archive, position: int, stop: int) -> Iterator[tuple[int, Member | None]]:
    """Follow the chain of headers from one of them to the first that begins at `stop` or behind.

    Yields:
        Where each entry of the archive begins, and its member; None for a folder.
    """
    while position < stop and not _is_end(archive, position):
        member, following = _entry(archive, position)
        yield position, member
        position = following


def _is_end(archive: _Archive, position: int) -> bool:
    """Whether the end mark, blocks of zeros up to the end of the file, begins here."""
    if position >= archive.length:
        raise TarError("it ends without an end mark, so it is probably cut off", position)
    if archive.read(position, _BLOCK).strip(b"\0"):
        return False
    for rest in range(position, archive.length, CHUNK):
        if archive.read(rest, CHUNK).strip(b"\0"):
            raise TarError("there is data behind the end mark: are these several tars?", position)
    return True


def _entry(archive: _Archive, position: int) -> tuple[Member | None, int]:
    """Read one entry: its extended headers, if any, and its header.

    Returns:
        The member, None if it is a folder, and where the next entry begins.
    """
    extended: dict[str, str] = {}
    header = _header(archive, position)
    while header.kind in _EXTENSIONS:
        extended = _extension(archive, header) | extended  # the first one counts, as in tarfile
        header = _header(archive, header.following)
    header = _override(header, extended)
    if header.kind == _GNU_SPARSE:
        header = replace(header, map_blocks=_map_blocks(archive, header.position))
    if header.data_end > archive.length:
        raise TarError(f"{header.name} is cut off", position)
    return _member(header, extended), header.following


def _member(header: _Header, extended: dict[str, str]) -> Member | None:
    is_folder = header.name.endswith("/") and header.kind in _REGULAR  # as old tars write them
    if is_folder or header.kind in _NO_MEMBERS:
        return None
    if header.kind not in _REGULAR:
        kind = _KINDS.get(header.kind, f"tar member of type {_text(header.kind)}")
    elif any(key.startswith("GNU.sparse.") for key in extended):
        kind = SPARSE_FILE
    else:
        kind = FILE
    size = header.data_end - header.data
    return Member(header.name, header.data, size, kind, header.link if kind == HARD_LINK else "")


def _map_blocks(archive: _Archive, position: int) -> int:
    """The number of blocks that continue the map of a sparse file behind its header."""
    count, flag = 0, _MAP_GOES_ON
    while True:
        block = archive.read(position + count * _BLOCK, _BLOCK)
        if len(block) < _BLOCK:
            raise TarError("it is cut off inside the map of a sparse file", position)
        if not block[flag]:
            return count
        count, flag = count + 1, _MAP_BLOCK_GOES_ON


def _header(archive: _Archive, position: int) -> _Header:
    """Parse the header block at `position`."""
    block = archive.read(position, _BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        raise TarError(_why_no_header(block, position, error), position) from None
    if info.size < 0:
        raise TarError("a header has a negative size", position)
    # GNU tars have other fields where POSIX has the prefix of the name, and V7 tars none.
    name = info.name if block.startswith(b"ustar\0", _MAGIC_PLACE) else _text(block[:100])
    return _Header(position, info.type, name, info.size, info.linkname)


def _why_no_header(block: bytes, position: int, error: tarfile.HeaderError) -> str:
    for magic, program in _COMPRESSED.items():
        if position == 0 and block.startswith(magic):
            return f"it is compressed by {program}; decompress it"
    if len(block) < _BLOCK:
        return "it is cut off inside a header"
    if block.startswith(_MAGIC, _MAGIC_PLACE):
        return f"a header is damaged ({error})"
    return "there is no header"


def _text(field: bytes) -> str:
    """Text up to the first zero byte, as valid Unicode, which Arrow requires."""
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _extension(archive: _Archive, header: _Header) -> dict[str, str]:
    """Read what an extended header says about the header after it, under the names of PAX."""
    if header.size > _LONGEST_EXTENSION:
        raise TarError(f"an extended header has {header.size} bytes", header.position)
    data = archive.read(header.data, header.size)
    if header.kind == _LONG_NAME:
        return {"path": _text(data)}
    if header.kind == _LONG_LINK:
        return {"linkpath": _text(data)}
    try:
        return dict(_pax_records(data))
    except ValueError:
        raise TarError("a PAX header has a broken record", header.position) from None


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    r"""Split records of the form "LENGTH KEY=VALUE\n", where LENGTH counts the whole record.

    Raises:
        ValueError: a record has another form.
    """
    while data.strip(b"\0"):  # some writers pad
        digits, _, _ = data.partition(b" ")
        length = int(digits)
        if length <= len(digits):
            raise ValueError(length)
        record, newline = data[len(digits) + 1 : length - 1], data[length - 1 : length]
        key, equals, value = record.partition(b"=")
        if newline != b"\n" or not equals:
            raise ValueError(record)
        yield key.decode("utf-8", "replace"), value.decode("utf-8", "replace")
        data = data[length:]


def _override(header: _Header, extended: dict[str, str]) -> _Header:
    """Apply what extended headers say."""
    size = extended.get("size", str(header.size))
    if not size.isdecimal():
        raise TarError(f"a PAX header gives the size {size}", header.position)
    # A sparse file has a made-up `path`.
    name = extended.get("GNU.sparse.name", extended.get("path", header.name))
    return replace(header, name=name, size=int(size), link=extended.get("linkpath", header.link))
