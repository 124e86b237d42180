"""What there is to label: every image of folders, buckets, tars and tables, in order."""

# ruff: noqa: PTH100, PTH110, PTH112, PTH116 - as in lib/archive/listing.py

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from lib.archive.entry import SUFFIXES, TABLES, TAR, Entry, File, Skip, is_image, suffix_of
from lib.archive.listing import ArrowTree, LocalTree, S3Tree
from lib.archive.tables import Table
from lib.archive.tar_ranges import ranges
from lib.common.errors import UserError
from lib.storage import s3
from lib.storage.fetch import local_etag
from lib.storage.filesystem import check_scheme
from lib.storage.options import S3Options
from lib.storage.s3_errors import S3Error
from lib.storage.uris import S3_SCHEME, bucket_and_key, local_path, local_uri, scheme_of

RANGES_AT_A_TIME = 8
ATTEMPTS_AT_THE_START = 3
"""Whoever gave a wrong address shall know soon."""
MOST_AHEAD = 10_000
"""Files that are held back while a tar before them is still being listed."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_FILES = (*SUFFIXES, TAR, *TABLES)


class Position(NamedTuple):
    """How far a listing has come.

    Attributes:
        source: number of the source.
        done: uri of the last file that has been listed whole; None: none of this source.
        part: uri of the file behind it that has been listed in part.
        place: up to where: the byte of a tar, the row of a table.
    """

    source: int = 0
    done: str | None = None
    part: str | None = None
    place: int = -1


@dataclass(frozen=True)
class _One:
    """A source that is a single file."""

    file: File

    def files(self, after: str | None = None) -> Iterator[File | Skip]:
        """The file."""
        if after is None:
            yield self.file


Tree = LocalTree | S3Tree | ArrowTree | _One


class _Listed(NamedTuple):
    """What has been found, the file it is in, and where there; None: it is the whole file."""

    file: str
    place: int | None
    what: Entry | Skip


@dataclass(frozen=True)
class Reading:
    """How the sources are read.

    Attributes:
        column: of tables: holds the images or their names; None finds it.
        unpack: look into the tars and tables that lie in folders.
        carry: columns of tables whose values go with each image into its label.
        s3: where S3 is.
    """

    column: str | None = None
    unpack: bool = True
    carry: tuple[str, ...] = ()
    s3: S3Options = field(default_factory=S3Options)


class Archive:
    """The images of one or more sources, to be iterated over once.

    Attributes:
        skipped: What was passed over so far, counted by reason: "other file type", "symbolic link",
            "not a regular file", "unreadable" (files or whole folders; each of these is logged).
        position: Behind the last image that was given.
        known: Gives the images of a tar that an earlier listing has found, if it is still the same;
            None reads it.
    """

    known: Callable[[File], Sequence[Entry] | None] | None = None

    def __init__(
        self, sources: Sequence[str], limit: int | None = None, reading: Reading | None = None
    ) -> None:
        """Check the sources; nothing is listed yet.

        Args:
            sources: Folders and prefixes, which are searched recursively for images, tars and Parquet;
                single images, tars and tables. Paths or URIs. Of folders what lies in several is
                listed once.
            limit: Stop after so many images.
            reading: How to read them.

        Raises:
            UserError: A source is missing, cannot be read, or is of a kind that is not supported.
        """
        self.skipped: Counter[str] = Counter()
        self.position = Position()
        self._sources = sources
        self._limit = limit
        self._reading = reading or Reading()
        self._trees = _outermost([self._open(source) for source in sources])

    def __iter__(self) -> Iterator[Entry]:
        """List the images.

        Raises:
            UserError: At the end, where there was none.
        """
        empty = True
        for entry in islice(self.behind(Position()), self._limit):
            empty = False
            yield entry
        if empty:
            raise UserError(self._why_empty())

    def behind(self, position: Position, given: int = 0) -> Iterator[Entry]:
        """List the images behind a position.

        Args:
            position: of an earlier listing of the same sources.
            given: images that the earlier listing gave; they count towards the limit.
        """
        self.position = position
        left = None if self._limit is None else self._limit - given
        return islice(self._behind(position), left)

    def _behind(self, position: Position) -> Iterator[Entry]:
        for number in range(position.source, len(self._trees)):
            start = position if number == position.source else Position(number)
            done, current = start.done, start.part
            for file, place, what in self._listed(start):
                if isinstance(what, Skip):
                    self.skipped[what.reason] += 1
                    continue
                if file != current:
                    done, current = current or done, file
                if place is None:
                    self.position = Position(number, file)
                else:
                    self.position = Position(number, done, file, place)
                yield what

    def _listed(self, start: Position) -> Iterator[_Listed]:
        """Everything of one source, in order; the ranges of tars are read side by side, ahead."""
        with ThreadPoolExecutor(RANGES_AT_A_TIME, "tars") as threads:
            ahead = _Ahead(start)
            for item in self._trees[start.source].files(start.done):
                if isinstance(item, Skip):
                    yield from ahead.append(_Listed("", None, item))
                elif not is_image(item.uri) and not self._reading.unpack:
                    yield from ahead.append(_Listed("", None, Skip("other file type")))
                elif self.known and (entries := self.known(item)) is not None:
                    for entry in entries:
                        yield from ahead.append(_Listed(item.uri, entry.offset, entry))
                elif suffix_of(item.uri) == TAR:
                    for part in ranges(item, self._reading.s3):
                        yield from ahead.expect(item.uri, threads.submit(part.entries))
                elif suffix_of(item.uri) in TABLES:
                    yield from ahead.rest()
                    yield from self._rows(item, start)
                else:
                    image = Entry(item.uri, item.size, item.etag)
                    yield from ahead.append(_Listed(item.uri, None, image))
            yield from ahead.rest()

    def _rows(self, file: File, start: Position) -> Iterator[_Listed]:
        table = self._table(file)
        alone = isinstance(self._trees[start.source], _One)
        if not alone and self._reading.column is None and not table.holds_images():
            # What names images here is likely about those beside it.
            yield _Listed(file.uri, None, Skip("Parquet without images"))
            return
        first = start.place + 1 if file.uri == start.part else 0
        for row, entry in table.entries(first):
            yield _Listed(file.uri, row, entry)

    def carried(self) -> list[pa.Field]:
        """Names and types of the carried columns.

        Raises:
            UserError: A source has no such columns.
        """
        if not self._reading.carry:
            return []
        for tree in self._trees:
            for file in tree.files():
                if isinstance(file, File) and suffix_of(file.uri) in TABLES:
                    return self._table(file).carried()
        raise UserError(
            f"--carry {' '.join(self._reading.carry)}: only tables have further columns, and there is "
            f"none in {', '.join(map(repr, self._sources))}"
        )

    def _table(self, file: File) -> Table:
        return Table(file, self._reading.column, self._reading.carry, self._reading.s3)

    def _open(self, source: str) -> Tree:
        scheme = check_scheme(source, "source")
        if source.lower().endswith(_COMPRESSED):
            raise UserError(
                f"{source!r} is compressed, so no part can be read alone; decompress it"
            )
        if scheme == "s3":
            return self._open_s3(source)
        if scheme:
            return ArrowTree(source.rstrip("/"))
        return _open_local(source)

    def _open_s3(self, source: str) -> Tree:
        bucket, key = bucket_and_key(source)
        client = s3.client(self._reading.s3, ATTEMPTS_AT_THE_START)
        try:
            if suffix_of(source) in _FILES:
                return _One(File(source, *client.size(bucket, key)))
            as_folder = key if not key or key.endswith("/") else f"{key}/"
            for prefix in dict.fromkeys((as_folder, key)):
                if next(client.pages(bucket, prefix)):
                    return S3Tree(f"{S3_SCHEME}{bucket}/{prefix}", self._reading.s3)
        except S3Error as error:
            raise UserError(f"cannot read {source!r}: {error}") from None
        raise UserError(f"there is nothing at {source!r}; check its spelling")

    def _why_empty(self) -> str:
        sources = ", ".join(map(repr, self._sources))
        skipped = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items())
        names = ", ".join(SUFFIXES)
        return f"no image in {sources} (passed over: {skipped or 'nothing'}); images end in {names}"


class _Ahead:
    """What has been found behind tars that are still being listed; given in order."""

    def __init__(self, start: Position) -> None:
        self._start = start
        self._waiting: deque[_Listed | tuple[str, Future[list[Entry | Skip]]]] = deque()
        self._ranges = 0

    def append(self, item: _Listed) -> Iterator[_Listed]:
        """Add something; gives what is ready."""
        self._waiting.append(item)
        return self._ready(RANGES_AT_A_TIME)

    def expect(self, tar: str, images: "Future[list[Entry | Skip]]") -> Iterator[_Listed]:
        """Add the images of a range; gives what is ready."""
        self._waiting.append((tar, images))
        self._ranges += 1
        return self._ready(RANGES_AT_A_TIME)

    def rest(self) -> Iterator[_Listed]:
        """Wait for everything."""
        return self._ready(0)

    def _ready(self, ranges: int) -> Iterator[_Listed]:
        while self._waiting and (
            isinstance(self._waiting[0], _Listed)
            or self._ranges > ranges
            or len(self._waiting) > MOST_AHEAD
            or ranges == 0
        ):
            first = self._waiting.popleft()
            if isinstance(first, _Listed):
                yield first
            else:
                self._ranges -= 1
                yield from self._images(*first)

    def _images(self, tar: str, images: "Future[list[Entry | Skip]]") -> Iterator[_Listed]:
        resumed = tar == self._start.part
        for what in images.result():
            place = what.offset if isinstance(what, Entry) else None
            if resumed and (place is None or place <= self._start.place):
                continue
            yield _Listed(tar, place, what)


def _open_local(source: str) -> Tree:
    path = os.path.abspath(local_path(source))
    if not os.path.exists(path):
        raise UserError(f"no such folder or file: {source!r}; check the spelling of the path")
    is_folder = os.path.isdir(path)
    if not is_folder and suffix_of(path) not in _FILES:
        raise UserError(
            f"{source!r} is no source of images: give a folder, or a file that ends in "
            f"{', '.join(_FILES)}"
        )
    if not os.access(path, os.R_OK | os.X_OK if is_folder else os.R_OK, effective_ids=True):
        raise UserError(f"no permission to read {source!r}; check its owner and mode")
    if is_folder:
        return LocalTree(path)
    info = os.stat(path)
    return _One(File(local_uri(path), info.st_size, local_etag(info)))


def _outermost(trees: list[Tree]) -> list[Tree]:
    """The sources without those that lie within another one or repeat it."""
    places: dict[str, Tree] = {}
    for tree in trees:
        places.setdefault(_place(tree), tree)
    return [
        tree
        for place, tree in places.items()
        if not any(_lies_in(place, other, places[other]) for other in places)
    ]


def _place(tree: Tree) -> str:
    if isinstance(tree, LocalTree):
        return os.path.realpath(tree.root)
    uri = tree.file.uri if isinstance(tree, _One) else tree.uri
    return uri if scheme_of(uri) else os.path.realpath(local_path(uri))


def _lies_in(place: str, other: str, tree: Tree) -> bool:
    if place == other or isinstance(tree, _One):
        return False
    return place.startswith(other if other.endswith("/") else f"{other}/")
