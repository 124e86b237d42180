"""Where the images of a data set lie: tars, folders and single files, cut into pieces of work.

An image has one of the endings `archive.SUFFIXES`. Its name is its path in the tar, or relative to the
folder; a single file has its bare name.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from lib.archive.archive import Archive, Reading
from lib.archive.entry import SUFFIXES, TAR, is_image, suffix_of
from lib.archive.tar import Member, TarError, buffered, iter_members
from lib.common.errors import UserError
from lib.datasets.path_index import PathIndex
from lib.storage.fetch import FetchError, fetch, file_version, open_file
from lib.storage.uris import local_path, scheme_of

PIECE_BYTES = 64 << 20
"""Of a tar. Finding the first header of a range reads up to 17 MB more: no smaller than a few times
that."""
PIECE_FILES = 1000

_VOTERS = 100  # images that decide which leading folders the metadata leaves out


class Found(NamedTuple):
    """An image of a piece.

    Attributes:
        name: as the source has it.
        read: gives its bytes, unless there are more than so many; only before the next image is
            asked for. Raises FetchError.
    """

    name: str
    read: Callable[[int], bytes]


class Piece(Protocol):
    """Images that one task reads; small, and can be pickled."""

    def __iter__(self) -> Iterator[Found]:
        """The images, in the order of the source.

        Raises:
            TarError: after the images before it, where a tar is damaged.
        """

    @property
    def source(self) -> str:
        """As the user gave it."""

    @property
    def digest(self) -> str:
        """Different for different images, and for the same ones after they were changed."""


class Source(Protocol):
    """One of the user's --images."""

    def __str__(self) -> str:
        """As the user gave it."""

    def names(self) -> Iterator[str]:
        """The names of all images, in order; of a damaged tar those before the damage.

        Raises:
            UserError: there is no image.
        """

    def pieces(self) -> Iterator[Piece]:
        """The images in pieces of about equal work."""


def open_sources(images: Sequence[str]) -> list[Source]:
    """Check that everything is there and of a kind that can be read.

    Args:
        images: paths or `file:///` URIs of tars, of folders, which are searched recursively, and of
            image files.

    Raises:
        UserError: names what is not.
    """
    return [_open_source(source) for source in dict.fromkeys(images)]


def common_prefix(names: Iterable[str], index: PathIndex) -> str | None:
    """The leading folders that a source has and the metadata leaves out, such as `imdb_crop/`.

    The first images that the metadata names decide, by majority.

    Args:
        names: of the source's images.
        index: paths of the metadata.

    Returns:
        A prefix of the names, possibly empty; None if the metadata names none of the images.
    """
    votes = (_prefix_of(name, index) for name in names)
    counts = Counter(islice((vote for vote in votes if vote is not None), _VOTERS))
    return counts.most_common(1)[0][0] if counts else None


def _prefix_of(name: str, index: PathIndex) -> str | None:
    """The shortest prefix of whole folders without which the metadata names the image."""
    folders = [place + 1 for place, letter in enumerate(name) if letter == "/"]
    return next((name[:end] for end in (0, *folders) if name[end:] in index), None)


def _open_source(source: str) -> Source:
    if suffix_of(source) != TAR:
        return _Folder(source)
    try:
        open_file(source).close()
    except OSError as error:
        raise UserError(f"cannot read {source!r}: {error.strerror}") from error
    return _Tar(source)


@dataclass(frozen=True)
class _Tar:
    source: str

    def __str__(self) -> str:
        return self.source

    def names(self) -> Iterator[str]:
        with _open_tar(self.source) as file:
            try:
                yield from (member.name for member in _images(file))
            except TarError as error:
                if error.offset == 0:
                    raise UserError(f"{self.source}: {error}") from None
                # The piece that comes upon the damage reports it.

    def pieces(self) -> Iterator[Piece]:
        with open_file(self.source) as file:
            size, etag = file_version(file)
        for start in range(0, max(1, size), PIECE_BYTES):
            yield _TarRange(self.source, start, start + PIECE_BYTES, size, etag)


@dataclass(frozen=True)
class _TarRange:
    source: str
    start: int
    end: int
    size: int
    etag: str

    def __iter__(self) -> Iterator[Found]:
        with _open_tar(self.source) as file:
            for member in _images(file, self.start, self.end):
                yield Found(member.name, partial(_read_member, file, member))

    @property
    def digest(self) -> str:
        return _digest(repr(self))


@dataclass(frozen=True)
class _Folder:
    source: str

    def __post_init__(self) -> None:
        self._archive()  # it checks

    def __str__(self) -> str:
        return self.source

    def _archive(self) -> Archive:
        return Archive((self.source,), reading=Reading(unpack=False))

    def names(self) -> Iterator[str]:
        root = _root(self.source)
        return (_name(entry.uri, root) for entry in self._archive())

    def pieces(self) -> Iterator[Piece]:
        entries = iter(self._archive())
        while part := list(islice(entries, PIECE_FILES)):
            yield _Files(
                self.source,
                tuple(entry.uri for entry in part),
                _digest(repr([(entry.uri, entry.etag) for entry in part])),
            )


@dataclass(frozen=True)
class _Files:
    source: str
    uris: tuple[str, ...]
    digest: str

    def __iter__(self) -> Iterator[Found]:
        root = _root(self.source)
        for uri in self.uris:
            yield Found(_name(uri, root), partial(_read_file, uri))


def _open_tar(source: str) -> io.BufferedReader:
    return buffered(cast(io.RawIOBase, open_file(source)))


def _images(file: io.BufferedReader, start: int = 0, end: int | None = None) -> Iterator[Member]:
    members = iter_members(file, start, end)
    return (member for member in members if member.name.lower().endswith(SUFFIXES))


def _read_member(file: io.BufferedReader, member: Member, max_bytes: int) -> bytes:
    if member.size > max_bytes:
        raise FetchError("too_large", f"{member.size} bytes; the limit is {max_bytes}")
    file.seek(member.offset)
    return file.read(member.size)


def _read_file(uri: str, max_bytes: int) -> bytes:
    return fetch(uri, max_bytes).data


def _root(source: str) -> Path | str:
    """The folder to which names are relative; a prefix in object storage."""
    if scheme_of(source):
        return source.rpartition("/")[0] if is_image(source) else source.rstrip("/")
    path = local_path(source).absolute()
    return path if path.is_dir() else path.parent


def _name(uri: str, root: Path | str) -> str:
    if isinstance(root, str):
        return uri.removeprefix(root).lstrip("/")
    relative = os.path.relpath(local_path(uri), root)
    return os.fsencode(relative).decode("utf-8", "replace")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
