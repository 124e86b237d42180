"""Members of a tar read in place, by byte ranges that several tasks can read independently.

A range begins anywhere. Its reader looks for the next header (512-byte aligned, magic `ustar`, correct
checksum) and follows the chain of headers from there for `_TRUST` bytes. If that chain is sound, the
range is read from it. If it breaks (the header belongs to a tar inside the tar, or the archive is
damaged), the chain is followed from the beginning of the archive, which is slower and always correct.

Limitation: a tar inside the tar that extends more than `_TRUST` bytes behind the beginning of a range, or
lacks its end mark. Its members count as members of the archive until, in the first case, its end raises
`TarError`. Read such an archive as a single range.

The format: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

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

_REGULAR = b"0\x007"
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes: whatever their size field says
_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS_PAX = b"L", b"K", b"x", b"X"
_EXTENSIONS = _LONG_NAME + _LONG_LINK + _PAX + _SOLARIS_PAX
_SPARSE = b"S"


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
    """A regular file in the archive: `size` bytes from byte `offset` are its content."""

    name: str
    offset: int
    size: int


def buffered(file: io.RawIOBase) -> io.BufferedReader:
    """Wrap an unbuffered file, such as a `pyarrow.NativeFile`, so that it is fetched in large chunks.

    Read each member before asking `iter_members` for the next one: header and content then come from
    the same chunk, and each chunk is fetched once.
    """
    return io.BufferedReader(file, CHUNK)


def iter_members(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """Yield the regular files whose header begins in [start, end), in order.

    Where extended headers precede the header (long names, PAX), the first of them counts. So ranges
    that cover an archive without overlap yield each of its members once.

    Args:
        file: the tar, uncompressed and seekable; may be moved between two members.
        start: byte of the archive.
        end: byte of the archive; None: its end.

    Raises:
        TarError: after the members before it, where the archive is damaged, ends without its end
            mark, goes on behind it, or holds a sparse file.
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

    @property
    def data(self) -> int:
        """Where the content begins."""
        return self.position + _BLOCK

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
        for block in _blocks_with_magic(chunk):
            position = chunk_start + block
            if position < stop and _could_be_header(archive, position):
                return position
    return None


def _blocks_with_magic(chunk: bytes) -> Iterator[int]:
    found = chunk.find(_MAGIC)
    while found >= 0:
        block, place = divmod(found, _BLOCK)
        if place == _MAGIC_PLACE:
            yield block * _BLOCK
        found = chunk.find(_MAGIC, found + 1)


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
        Where each entry of the archive begins, and its member; None for what is no regular file.
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
        The member, None if it is no regular file, and where the next entry begins.
    """
    extended: dict[str, str] = {}
    header = _header(archive, position)
    while header.kind in _EXTENSIONS:
        extended = _extension(archive, header) | extended  # the first one counts, as in tarfile
        header = _header(archive, header.following)
    if header.kind == _SPARSE or any(key.startswith("GNU.sparse.") for key in extended):
        raise TarError("a sparse file is here, whose content is not in one piece", position)
    header = _override(header, extended)
    if header.data_end > archive.length:
        raise TarError(f"{header.name} is cut off", position)
    is_file = header.kind in _REGULAR and not header.name.endswith("/")  # old tars' folders
    return Member(header.name, header.data, header.size) if is_file else None, header.following


def _header(archive: _Archive, position: int) -> _Header:
    """Parse the header block at `position`."""
    block = archive.read(position, _BLOCK)
    if len(block) < _BLOCK:
        raise TarError("it is cut off inside a header", position)
    if not block.startswith(_MAGIC, _MAGIC_PLACE):
        raise TarError("there is no header", position)
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        raise TarError(f"a header is damaged ({error})", position) from None
    if info.size < 0:
        raise TarError("a header has a negative size", position)
    # GNU tars have other fields where POSIX has the prefix of the name.
    name = info.name if block.startswith(b"ustar\0", _MAGIC_PLACE) else _text(block[:100])
    return _Header(position, info.type, name, info.size)


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
        return {}
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
    return replace(header, name=extended.get("path", header.name), size=int(size))
