"""The images of a data set in tars, folders and single files, cut into shards of about equal work.

The name of an image ends in one of `lib.archive.entry.SUFFIXES`. It is the path in the tar, or relative
to the folder; a single file has its bare name.
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
from typing import NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc

from lib.archive.archive import Archive, Reading
from lib.archive.entry import SUFFIXES, TAR, is_image, suffix_of
from lib.archive.tar import Member, TarError, buffered, iter_members
from lib.archive.tar_contents import KINDS_WITH_CONTENT, TarContents
from lib.common.errors import UserError, reason_of
from lib.datasets.path_index import PathIndex
from lib.storage.errors import FetchError
from lib.storage.fetch import fetch, file_version, open_file
from lib.storage.options import StorageOptions
from lib.storage.uris import local_path, scheme_of

SHARD_BYTES = 64 << 20
"""Of a tar. Finding the first header of a range reads up to 17 MB more: shards are much larger."""
SHARD_FILES = 1000

_VOTERS = 100  # images that decide by majority which leading folders the metadata leaves out


class SourceImage(NamedTuple):
    """An image of a shard.

    Attributes:
        name: as the source has it.
        read: gives its bytes, unless there are more than so many; only before the next image is
            asked for. Raises FetchError.
    """

    name: str
    read: Callable[[int], bytes]


def open_sources(images: Sequence[str], storage: StorageOptions | None = None) -> list["Source"]:
    """Open the sources of images, without reading an image.

    Args:
        images: paths or `file:///` URIs of tars, of folders, which are searched recursively, and of
            image files; or `s3://` and other URIs.
        storage: options.

    Raises:
        UserError: a source cannot be read.
    """
    options = storage or StorageOptions()
    return [_open_source(source, options) for source in dict.fromkeys(images)]


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


def metadata_prefix(names: Iterable[str], paths: pa.ChunkedArray) -> str | None:
    """The leading folders that the metadata has and a source leaves out, such as `/data/faces/`.

    The first images whose names end exactly one path decide, by majority.

    Args:
        names: of the source's images.
        paths: (n,) of the metadata; null where a row names no image.

    Returns:
        A prefix of the paths that ends in a slash; None if no path ends in the name of an image.
    """
    counts: Counter[str] = Counter()
    for name in islice(names, _VOTERS):
        found = paths.filter(pc.ends_with(paths, f"/{name}").fill_null(False))
        if len(found) == 1:
            counts[found[0].as_py().removesuffix(name)] += 1
    return counts.most_common(1)[0][0] if counts else None


def _prefix_of(name: str, index: PathIndex) -> str | None:
    """The shortest prefix of whole folders without which the metadata names the image."""
    folders = [place + 1 for place, letter in enumerate(name) if letter == "/"]
    return next((name[:end] for end in (0, *folders) if name[end:] in index), None)


def _open_source(source: str, options: StorageOptions) -> "Source":
    if suffix_of(source) != TAR:
        return _Folder(source, options)
    try:
        open_file(source, options).close()
    except OSError as error:
        raise UserError(f"cannot read {source!r}: {reason_of(error)}") from error
    return _Tar(source, options)


@dataclass(frozen=True)
class _Tar:
    """A tar; the names of a damaged one are those before the damage."""

    source: str
    options: StorageOptions

    def __str__(self) -> str:
        return self.source

    def names(self) -> Iterator[str]:
        with _open_tar(self.source, self.options) as file:
            try:
                yield from (member.name for member in _images(file))
            except TarError as error:
                if error.offset == 0:
                    raise UserError(f"{self.source}: {error}") from None
                # The shard with the damage reports it.

    def shards(self) -> Iterator["ImageShard"]:
        with open_file(self.source, self.options) as file:
            size, etag = file_version(file)
        for start in range(0, max(1, size), SHARD_BYTES):
            yield _TarRange(self.source, start, start + SHARD_BYTES, f"{size} {etag}", self.options)


@dataclass(frozen=True)
class _TarRange:
    """Images whose headers are in a range of a tar, in order; damage raises `TarError` behind them."""

    source: str
    start: int
    end: int
    version: str
    options: StorageOptions

    def __iter__(self) -> Iterator[SourceImage]:
        contents = TarContents(self.source, self.options)
        with _open_tar(self.source, self.options) as file:
            for member in _images(file, self.start, self.end):
                yield SourceImage(member.name, partial(_read_member, file, contents, member))

    @property
    def digest(self) -> str:
        return _digest(repr((self.source, self.start, self.end, self.version)))


@dataclass(frozen=True)
class _Folder:
    source: str
    options: StorageOptions

    def __post_init__(self) -> None:
        self._archive()  # it checks

    def __str__(self) -> str:
        return self.source

    def _archive(self) -> Archive:
        return Archive((self.source,), reading=Reading(unpack=False, storage=self.options))

    def names(self) -> Iterator[str]:
        root = _root(self.source)
        return (_name(entry.uri, root) for entry in self._archive())

    def shards(self) -> Iterator["ImageShard"]:
        entries = iter(self._archive())
        while part := list(islice(entries, SHARD_FILES)):
            yield _Files(
                self.source,
                tuple(entry.uri for entry in part),
                _digest(repr([(entry.uri, entry.etag) for entry in part])),
                self.options,
            )


@dataclass(frozen=True)
class _Files:
    source: str
    uris: tuple[str, ...]
    digest: str
    options: StorageOptions

    def __iter__(self) -> Iterator[SourceImage]:
        root = _root(self.source)
        for uri in self.uris:
            yield SourceImage(_name(uri, root), partial(_read_file, uri, self.options))


Source = _Tar | _Folder
"""One value of --images: `str(source)` gives it, `names()` the names of its images in order, `shards()`
its images in shards of about equal work."""
ImageShard = _TarRange | _Files
"""Images that one task reads, in order; small and picklable. Its `digest` changes when an image does."""


def _open_tar(source: str, options: StorageOptions) -> io.BufferedReader:
    return buffered(cast(io.RawIOBase, open_file(source, options)))


def _images(file: io.BufferedReader, start: int = 0, end: int | None = None) -> Iterator[Member]:
    members = iter_members(file, start, end)
    return (member for member in members if member.name.lower().endswith(SUFFIXES))


def _read_member(
    file: io.BufferedReader, contents: TarContents, member: Member, max_bytes: int
) -> bytes:
    if member.kind not in KINDS_WITH_CONTENT:
        raise FetchError("not_found", f"a {member.kind} in the tar, which has no content")
    try:
        content = contents.of(member)
    except OSError as error:
        raise FetchError.of(error) from None
    if content.size is None:
        raise FetchError("not_found", str(content.fault).partition(": ")[2])
    if content.size > max_bytes:
        raise FetchError("too_large", f"{content.size} bytes; the limit is {max_bytes}")
    file.seek(content.offset)
    return file.read(content.size)


def _read_file(uri: str, options: StorageOptions, max_bytes: int) -> bytes:
    return fetch(uri, max_bytes, options=options).data


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
