"""Where the content of the members of a tar is; hard links share that of another member."""

import io
import posixpath
from threading import Lock
from typing import BinaryIO, NamedTuple, cast

from lib.archive.tar import FILE, HARD_LINK, SPARSE_FILE, Member, TarError, buffered, iter_members
from lib.storage.fetch import open_file
from lib.storage.options import StorageOptions
from lib.storage.uris import scheme_of

KINDS_WITH_CONTENT = (FILE, HARD_LINK, SPARSE_FILE)
"""The kinds of members that are files once they are unpacked."""

_Places = dict[str, list[tuple[int, Member]]]
"""Name → the members of this name: the offset of each, and the member that has its content."""


class Content(NamedTuple):
    """The content of a member.

    Attributes:
        offset: its first byte in the tar.
        size: in bytes; None where it cannot be read.
        fault: `STATUS: REASON` where it cannot be read.
    """

    offset: int
    size: int | None
    fault: str | None = None


class TarContents:
    """Finds the contents of the members of a tar, for any number of threads.

    A hard link names a member anywhere before it. So the first link reads all headers of the tar once
    more, and from then on the names and places of all members are in memory.
    """

    def __init__(self, tar: str, options: StorageOptions) -> None:
        """Open nothing yet.

        Args:
            tar: path or URI.
            options: how files are reached.
        """
        self._tar, self._options = tar, options
        self._lock = Lock()
        self._places: _Places | None = None

    def of(self, member: Member) -> Content:
        """The content of a member of one of `KINDS_WITH_CONTENT`.

        Raises:
            OSError: the tar cannot be read.
        """
        found: Member | None = member
        if member.kind == HARD_LINK:
            with self._lock:
                if self._places is None:
                    self._places = _read_places(self._tar, self._options)
            found = _target(self._places, member)
        if found is None:
            fault = (
                f"not_found: a hard link to {member.target!r}, which is not before it in the tar"
            )
            return Content(member.offset, None, fault)
        if found.kind == SPARSE_FILE:
            fault = "decode_error: a sparse file in a tar, whose content is not in one piece"
            return Content(member.offset, None, fault)
        return Content(found.offset, found.size)


def open_headers(tar: str, options: StorageOptions) -> BinaryIO:
    """Open a tar to read its headers.

    Of a local file only the headers are read. A remote file is read completely, which is faster than a
    request for each header.

    Raises:
        OSError: it cannot be opened.
    """
    file = open_file(tar, options)
    return buffered(cast(io.RawIOBase, file)) if scheme_of(tar) else file


def _read_places(tar: str, options: StorageOptions) -> _Places:
    places: _Places = {}
    with open_headers(tar, options) as file:
        try:
            for member in iter_members(file):
                content = _target(places, member) if member.kind == HARD_LINK else member
                if content is not None and content.kind in KINDS_WITH_CONTENT:
                    places.setdefault(_path(member.name), []).append((member.offset, content))
        except TarError:
            pass  # whoever reads the members reports it
    return places


def _target(places: _Places, link: Member) -> Member | None:
    """What unpacking would find: the last member of the name before the link."""
    named = places.get(_path(link.target), [])
    before = [content for offset, content in named if offset < link.offset]
    return before[-1] if before else None


def _path(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")
