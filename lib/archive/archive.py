"""The images of folders, buckets, tars and tables, listed in a fixed order."""

# ruff: noqa: PTH112, PTH116 - as in lib/archive/listing.py

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from lib.archive.entry import (
    ARROW,
    PARQUET,
    SUFFIXES,
    TABLES,
    TAR,
    Entry,
    File,
    Skip,
    is_image,
    suffix_of,
)
from lib.archive.image_column import NoImageColumnError
from lib.archive.listing import BucketListing, LocalListing
from lib.archive.pending import Listed, Pending, wait_for
from lib.archive.selection import Selection
from lib.archive.sources import (
    FILES,
    Listing,
    Selected,
    SingleFile,
    TableFolder,
    checked_path,
    folder_of,
    is_table,
    open_url,
    outermost,
    place_of,
)
from lib.archive.splits import SPLIT, split_of
from lib.archive.tables import Table, TableError
from lib.archive.tar_ranges import ranges
from lib.common.errors import UserError, reason_of
from lib.storage.buckets import open_bucket
from lib.storage.fetch import URL_SCHEMES, local_etag
from lib.storage.filesystem import check_scheme
from lib.storage.options import StorageOptions
from lib.storage.uris import bucket_and_key, local_uri, scheme_of, with_lower_scheme

RANGES_AT_A_TIME = 8
ATTEMPTS_AT_THE_START = 3
"""Few, so that a wrong address is reported soon."""
MOST_AHEAD = 10_000
"""Entries that may wait for a tar before them to be listed."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Position(NamedTuple):
    """Progress of a listing.

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
class Reading:
    """How the sources are read.

    Attributes:
        column: of tables: holds the images or their names; None finds it.
        unpack: look into the tars and tables that lie in folders.
        carry: columns of tables whose values go with each image into its label; `split` is that of its
            place (`lib.archive.splits`) where a table has no such column, or the image is in none.
        storage: how files are reached.
        all_files: take system files, too (`lib.archive.system_files`).
        exclude: folders that are passed over where they lie below a source, such as the run's own output.
    """

    column: str | None = None
    unpack: bool = True
    carry: tuple[str, ...] = ()
    storage: StorageOptions = field(default_factory=StorageOptions)
    all_files: bool = False
    exclude: tuple[str, ...] = ()


class Archive:
    """The images of one or more sources, to be iterated over once.

    Attributes:
        skipped: Number of skipped files so far by reason: "other file type", "not a regular file",
            "link to a folder", "system file", "output of a run", "Parquet without images", "unreadable"
            (each of these is logged); in tars also "symbolic link", "device", "pipe" and other types of
            members. On a local disk a folder that is passed over counts as one.
        position: Behind the last image that was given.
        known: Gives the images of a tar from an earlier listing if the tar is unchanged, else None.
    """

    known: Callable[[File], Sequence[Entry] | None] | None = None

    def __init__(
        self, sources: Sequence[str], limit: int | None = None, reading: Reading | None = None
    ) -> None:
        """Check the sources; nothing is listed yet.

        Args:
            sources: Folders and prefixes, which are searched recursively for images, tars and Parquet;
                single images, tars and tables; folders of Parquet files (`list.parquet/`) that are one
                table. Paths or URIs. A source within another one is listed once, a table by itself.
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
        self._column_found = False
        self._listings = outermost([self._open(source) for source in sources])
        self._named = {place_of(listing) for listing in self._listings if is_table(listing)}

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
        for number in range(position.source, len(self._listings)):
            start = position if number == position.source else Position(number)
            done, current = start.done, start.part
            for file, place, found in self._listed(start):
                if isinstance(found, Skip):
                    self.skipped[found.reason] += 1
                    continue
                if file != current:
                    done, current = current or done, file
                if place is None:
                    self.position = Position(number, file)
                else:
                    self.position = Position(number, done, file, place)
                yield self._with_split(found, self._listings[number])
        self._check_column()

    def _with_split(self, entry: Entry, listing: Listing) -> Entry:
        """An image that is in no table, with the split that its place names."""
        carry = self._reading.carry
        if SPLIT not in carry or entry.extra:
            return entry
        split = split_of(entry.uri, folder_of(listing))
        return entry._replace(extra=tuple(split if name == SPLIT else None for name in carry))

    def _listed(self, start: Position) -> Iterator[Listed]:
        """Everything of one source, in order; several ranges of tars are listed at the same time."""
        waiting: deque[Listed | Pending] = deque()
        ranges_ahead = 0
        with ThreadPoolExecutor(RANGES_AT_A_TIME, "tars") as threads:
            for item in self._items(start, threads):
                waiting.append(item)
                ranges_ahead += isinstance(item, Pending)
                while waiting and (
                    isinstance(waiting[0], Listed)
                    or ranges_ahead > RANGES_AT_A_TIME
                    or len(waiting) > MOST_AHEAD
                ):
                    ranges_ahead -= isinstance(waiting[0], Pending)
                    yield from wait_for(waiting.popleft(), start.part, start.place)
            for item in waiting:
                yield from wait_for(item, start.part, start.place)

    def _items(self, start: Position, threads: ThreadPoolExecutor) -> Iterator[Listed | Pending]:
        for file in self._files(self._listings[start.source], start.done):
            if isinstance(file, Skip):
                yield Listed("", None, file)
            elif not is_image(file.uri) and not self._reading.unpack:
                yield Listed("", None, Skip("other file type"))
            elif isinstance(file, Entry):
                yield Listed(file.uri, None, file)
            elif self.known and (entries := self.known(file)) is not None:
                yield from (Listed(file.uri, entry.offset, entry) for entry in entries)
            elif suffix_of(file.uri) == TAR:
                for part in ranges(file, self._reading.storage, self._reading.all_files):
                    yield Pending(file.uri, threads.submit(part.members))
            elif suffix_of(file.uri) in TABLES:
                yield from self._rows(file, start)
            else:
                yield Listed(file.uri, None, Entry(file.uri, file.size, file.etag))

    def _files(self, listing: Listing, after: str | None = None) -> Iterator[File | Skip | Entry]:
        """What is in a source, without the tables in a folder that are named as sources, too."""
        if is_table(listing) or not self._named:
            yield from listing.files(after)
            return
        for found in listing.files(after):
            file = isinstance(found, File) and SingleFile(found)
            if not (file and is_table(file) and place_of(file) in self._named):
                yield found

    def _rows(self, file: File, start: Position) -> Iterator[Listed]:
        listing = self._listings[start.source]
        table = self._table(file, listing)
        seen = start.place if file.uri == start.part else -1
        try:
            if reason := self._why_passed_over(table, listing):
                yield Listed(file.uri, None, Skip(reason))
                return
            for place, entry in table.entries(seen + 1):
                yield Listed(file.uri, place, entry)
        except TableError as error:
            if isinstance(listing, SingleFile):
                raise
            if error.place > seen:
                yield Listed(file.uri, error.place, table.rest(error))

    def _why_passed_over(self, table: Table, listing: Listing) -> str | None:
        """The reason to pass over a table; None to take it.

        Raises:
            TableError: it cannot be read.
            UserError: it has no column of images and no other table may have one, or several.
        """
        column = self._reading.column
        if isinstance(listing, SingleFile) or (column is None and isinstance(listing, TableFolder)):
            return None
        format_ = "Arrow" if suffix_of(table.file.uri) == ARROW else "Parquet"
        try:
            content = table.image_column().content
        except NoImageColumnError:
            return f"{format_} without {f'column {column}' if column else 'images'}"
        self._column_found = True
        # A table of names in a folder most likely describes the images beside it.
        return f"{format_} without images" if column is None and content == "uri" else None

    def _check_column(self) -> None:
        """Compare the chosen column with the tables.

        Raises:
            UserError: Tables were passed over because they lack it, and there is no other.
        """
        column = self._reading.column
        lacking = [self.skipped[f"{name} without column {column}"] for name in ("Arrow", "Parquet")]
        if self._column_found or not any(lacking):
            return
        # Where this listing continues an earlier one, that one may have found it.
        for table, _ in self._tables():
            try:
                table.image_column()
                return
            except UserError:
                continue
        sources = ", ".join(map(repr, self._sources))
        raise UserError(f"--column {column}: no table in {sources} has this column with images")

    def carried(self) -> list[pa.Field]:
        """Names and types of the carried columns.

        Raises:
            UserError: A source has no such columns.
        """
        if not self._reading.carry:
            return []
        found: pa.Schema | None = None
        for table, listing in self._tables():
            try:
                if self._why_passed_over(table, listing):
                    continue
                fields = pa.schema(table.carried())
            except TableError:
                if isinstance(listing, SingleFile):
                    raise
                continue
            found = self._unified(found, fields)
            if not any(pa.types.is_null(field.type) for field in found):
                break  # the types are known
        if found is not None:
            return list(found)
        if self._reading.carry == (SPLIT,):
            return [pa.field(SPLIT, pa.string())]
        raise UserError(
            f"--carry {' '.join(self._reading.carry)}: only tables have further columns, and there is "
            f"none in {', '.join(map(repr, self._sources))}"
        )

    def _unified(self, found: pa.Schema | None, fields: pa.Schema) -> pa.Schema:
        try:
            return pa.unify_schemas([found or fields, fields], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UserError(
                f"--carry {' '.join(self._reading.carry)}: the tables disagree on the types: "
                f"{reason_of(error)}"
            ) from None

    def _tables(self) -> Iterator[tuple[Table, Listing]]:
        for listing in self._listings:
            for file in self._files(listing):
                if isinstance(file, File) and suffix_of(file.uri) in TABLES:
                    yield self._table(file, listing), listing

    def _table(self, file: File, listing: Listing) -> Table:
        reading = self._reading
        base = listing.base if isinstance(listing, TableFolder) else file.uri.rpartition("/")[0]
        split = split_of(file.uri, folder_of(listing)) if SPLIT in reading.carry else None
        return Table(file, base, reading.column, reading.carry, reading.storage, split)

    def _open(self, source: str) -> Listing:
        listing = self._open_any(with_lower_scheme(source))
        if isinstance(listing, SingleFile) or suffix_of(source.rstrip("/")) != PARQUET:
            return listing
        table = TableFolder(listing)
        if not any(isinstance(found, File | Entry) for found in table.files()):
            raise UserError(f"there is no Parquet file in {source!r}; give the table or its folder")
        return table

    def _open_any(self, source: str) -> LocalListing | Selected | SingleFile:
        scheme = check_scheme(source, "source", URL_SCHEMES)
        if source.lower().endswith(_COMPRESSED):
            raise UserError(
                f"{source!r} is compressed, so no part can be read alone; decompress it"
            )
        if not scheme:
            return self._open_local(source)
        if scheme in URL_SCHEMES:
            return open_url(source)
        found = self._open_in_bucket(source)
        if isinstance(found, SingleFile):
            return found
        return Selected(found, self._selection(found.uri))

    def _selection(self, root: str) -> Selection:
        reading = self._reading
        exclude = [with_lower_scheme(folder) for folder in reading.exclude]
        return Selection(root, exclude, reading.all_files, reading.storage)

    def _open_local(self, source: str) -> LocalListing | SingleFile:
        path = checked_path(source)
        if os.path.isdir(path):
            return LocalListing(path, self._selection(path))
        info = os.stat(path)
        return SingleFile(File(local_uri(path), info.st_size, local_etag(info)))

    def _open_in_bucket(self, source: str) -> BucketListing | SingleFile:
        try:
            bucket, key = open_bucket(source, self._reading.storage, ATTEMPTS_AT_THE_START)
            root = f"{scheme_of(source)}://{bucket_and_key(source)[0]}/"
            if suffix_of(source) in FILES:
                try:
                    found = bucket.head(key)
                    return SingleFile(File(f"{root}{key}", found.size, found.etag))
                except FileNotFoundError:
                    if suffix_of(source) != PARQUET:
                        raise
            as_folder = key if not key or key.endswith("/") else f"{key}/"
            for prefix in dict.fromkeys((as_folder, key)):
                if next(bucket.pages(prefix), None):
                    return BucketListing(f"{root}{prefix}", self._reading.storage)
        except OSError as error:
            raise UserError(f"cannot read {source!r}: {reason_of(error)}") from None
        raise UserError(f"there is nothing at {source!r}; check its spelling")

    def _why_empty(self) -> str:
        sources = ", ".join(map(repr, self._sources))
        skipped = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items())
        names = ", ".join(SUFFIXES)
        return f"no image in {sources} (passed over: {skipped or 'nothing'}); images end in {names}"
