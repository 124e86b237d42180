"""Manifest rows → encoded bytes."""

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from lib.archive.entry import TABLES_OF_IMAGES, suffix_of
from lib.archive.image_column import image_column
from lib.archive.row_groups import open_groups
from lib.archive.tables import LIST_PLACES, is_damage
from lib.common.errors import UserError, reason_of
from lib.scoring.stages.stage import Stopwatch
from lib.storage.errors import FetchError
from lib.storage.fetch import fetch, file_version, open_file
from lib.storage.options import TIMEOUT_SECONDS, StorageOptions
from lib.storage.uris import is_data_uri, scheme_of

FETCHED = pa.schema(
    [
        ("data", pa.large_binary()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("note", pa.string()),
    ]
)
"""What `Fetch` adds: the encoded image, or status and error; and what is to be said of an image that was
read all the same."""
PLACE = ("uri", "size", "etag", "container", "offset", "fault")
"""The columns of the manifest that tell where an image is; all but `uri` may be missing or null."""

READS_AT_A_TIME = 16
LARGEST_GAP = 256 << 10
LARGEST_READ = 16 << 20
"""Images of one tar are read together if no more than these bytes lie between, up to so many together."""

FEWEST_TO_STOP = 8
"""A run stops if all of a worker's first images, so many at least, fail because of a whole server."""

CHANGED = "the file has changed since it was listed; labelled as it is now"
CONTAINER_CHANGED = "the file that the image is in has changed since it was listed: use --update"


class Place(NamedTuple):
    """Where an image of the batch is; `lib.archive.entry.Entry` explains the rest."""

    row: int
    uri: str
    size: int | None
    etag: str | None
    container: str | None
    offset: int
    fault: str | None


Row = dict[str, Any]


@dataclass
class Fetch:
    """Adds the columns of `FETCHED` in place of those of the manifest that told where the images are.

    Attributes:
        max_bytes: what is larger is not read.
        column: of tables, if chosen by the user.
        storage: how files are reached.
        timeout: seconds for one attempt to read something.
        reads: how many are read side by side.
    """

    max_bytes: int
    column: str | None = None
    storage: StorageOptions = field(default_factory=StorageOptions)
    timeout: float = TIMEOUT_SECONDS
    reads: int = READS_AT_A_TIME

    needs: ClassVar = ("uri",)
    drops: ClassVar = tuple(name for name in PLACE if name != "uri")
    gives: ClassVar = tuple(FETCHED.names)

    def for_one_of(self, workers: int, threads: int) -> "Fetch":
        """The same for one of several workers, with its share of the connections to a host."""
        share = max(1, self.storage.http.per_host // workers)
        http = replace(self.storage.http, per_host=share)
        storage = replace(self.storage, http=http)
        return replace(self, storage=storage, reads=READS_AT_A_TIME * threads)

    def setup(self, watch: Stopwatch) -> None:
        """Make ready to read several images at once."""
        self._watch = watch
        self._begun = False
        self._threads = ThreadPoolExecutor(self.reads, "fetch")
        self._tables: deque[_OpenTable] = deque()  # that no call reads at the moment

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Read the bytes of all images of the batch.

        Raises:
            UserError: none of the first images could be read, for a reason that holds for all.
        """
        with self._watch("fetch"):
            fetched = self._fetch(_places(batch))
        if not self._begun:
            _check_first(fetched)
            self._begun = True
        columns = pa.Table.from_pylist(fetched, schema=FETCHED)
        batch = batch.drop_columns([n for n in PLACE if n != "uri" and n in batch.column_names])
        for name in FETCHED.names:
            batch = batch.append_column(name, columns[name])
        return batch

    def _fetch(self, places: Sequence[Place]) -> list[Row]:
        rows: list[Row] = [{} for _ in places]
        reads = list(self._reads(places))
        # A file of this machine is there at once: threads would only cost.
        alone = len(reads) == 1 or not any(scheme_of(p.container or p.uri) for p in places)
        done = (
            [read() for read in reads] if alone else self._threads.map(lambda read: read(), reads)
        )
        for part in done:
            for row, result in part:
                rows[row] = result
        return rows

    def _reads(self, places: Sequence[Place]) -> "Iterator[Callable[[], list[tuple[int, Row]]]]":
        """What can be read side by side: an image each, or several of one tar or table."""
        together: dict[str, list[Place]] = {}
        for place in places:
            if place.fault is not None:
                yield lambda place=place: [(place.row, _fault(place.fault))]  # type: ignore[misc]
            elif place.container is None or is_data_uri(place.container):
                yield lambda place=place: [(place.row, self._image(place))]  # type: ignore[misc]
            else:
                together.setdefault(place.container, []).append(place)
        tables = {c: images for c, images in together.items() if suffix_of(c) in TABLES_OF_IMAGES}
        if tables:  # one after the other: they share what is open
            yield lambda: self._rows_of(tables)
        for container in together.keys() - tables.keys():
            for run in _runs(together[container]):
                yield lambda c=container, r=run: self._members(c, r)  # type: ignore[misc]

    def _rows_of(self, tables: dict[str, list[Place]]) -> list[tuple[int, Row]]:
        with self._open_table() as table:
            return [row for file, places in tables.items() for row in table.read(file, places)]

    @contextmanager
    def _open_table(self) -> "Iterator[_OpenTable]":
        """A table for one call: of calls side by side each has its own, and leaves it to the next one."""
        try:
            table = self._tables.popleft()
        except IndexError:
            table = _OpenTable(self.column, self.storage, self.max_bytes, self.timeout)
        yield table
        self._tables.append(table)

    def _image(self, place: Place) -> Row:
        try:
            data, etag = fetch(
                place.container or place.uri,
                self.max_bytes,
                options=self.storage,
                timeout=self.timeout,
            )
        except FetchError as error:
            return _failed(error)
        changed = place.etag is not None and etag and etag != place.etag
        return {"data": data, "note": CHANGED if changed else None}

    def _members(self, tar: str, run: Sequence[Place]) -> list[tuple[int, Row]]:
        """Read neighbours in a tar with one request."""
        too_large = [p for p in run if p.size is not None and p.size > self.max_bytes]
        rows = [
            (p.row, _error("too_large", f"{p.size} bytes; the limit is {self.max_bytes}"))
            for p in too_large
        ]
        wanted = [p for p in run if p not in too_large]
        if not wanted:
            return rows
        start, end = wanted[0].offset, max(p.offset + (p.size or 0) for p in wanted)
        try:
            data, etag = fetch(
                tar, max(end - start, 0), start, end - start, self.storage, self.timeout
            )
        except FetchError as error:
            return rows + [(p.row, _failed(error)) for p in wanted]
        for p in wanted:
            if p.etag is not None and etag and etag != p.etag:
                rows.append((p.row, _error("download_error", CONTAINER_CHANGED)))
            else:
                begin = p.offset - start
                rows.append((p.row, {"data": data[begin : begin + (p.size or 0)]}))
        return rows


def _places(batch: pa.Table) -> list[Place]:
    columns = [
        batch[name].to_pylist() if name in batch.column_names else [None] * len(batch)
        for name in PLACE
    ]
    return [Place(row, *values) for row, values in enumerate(zip(*columns, strict=True))]


def _runs(images: list[Place]) -> Iterator[list[Place]]:
    """Neighbours in a tar that are read with one request."""
    run: list[Place] = []
    for place in sorted(images, key=lambda p: p.offset):
        if run:
            end = run[-1].offset + (run[-1].size or 0)
            whole = place.offset + (place.size or 0) - run[0].offset
            if place.offset - end > LARGEST_GAP or whole > LARGEST_READ:
                yield run
                run = []
        run.append(place)
    if run:
        yield run


class _OpenTable:
    """The table that was read last, left where its next rows begin.

    Images arrive in the order of their rows, so that a file is opened once for a block of them, and each
    of its pages is read once, whatever the size of its row groups.
    """

    def __init__(
        self, column: str | None, options: StorageOptions, max_bytes: int, timeout: float
    ) -> None:
        self._column, self._options = column, options
        self._max_bytes, self._timeout = max_bytes, timeout
        self._uri = ""
        self._group = -1
        self._batch_start = 0

    def read(self, uri: str, places: Sequence[Place]) -> list[tuple[int, Row]]:
        """Read the images of some rows of one file."""
        places = sorted(places, key=lambda place: place.offset)
        rows: list[tuple[int, Row]] = []
        while len(rows) < len(places):  # once more for the groups of rows behind a damaged one
            rest = places[len(rows) :]
            try:
                self._open(uri)
                if (etag := rest[0].etag) and self._etag and etag != self._etag:
                    return [(p.row, _error("download_error", CONTAINER_CHANGED)) for p in places]
                for place in rest:
                    rows.append((place.row, self._row(place.offset)))
            except (OSError, pa.ArrowException, UserError) as error:
                failed = places[len(rows) :]
                if self._uri and is_damage(error):
                    failed = self._of_one_group(failed)
                self._uri = ""
                rows += [(p.row, _why_unread(error)) for p in failed]
        return rows

    def _of_one_group(self, places: Sequence[Place]) -> list[Place]:
        """The places of the group of rows that the first one is in."""
        group = self._group_of(self._number(places[0].offset)[0])
        return [p for p in places if self._group_of(self._number(p.offset)[0]) == group]

    def _number(self, offset: int) -> tuple[int, int]:
        """The number of the row, and of the image in it."""
        return divmod(offset, LIST_PLACES) if self._kind.is_list else (offset, 0)

    def _group_of(self, number: int) -> int:
        return max(group for group, start in enumerate(self._starts) if start <= number)

    def _open(self, uri: str) -> None:
        if uri == self._uri:
            return
        self._uri, self._group = "", -1
        raw = open_file(uri, self._options, self._timeout)
        _, self._etag = file_version(raw)
        self._groups = open_groups(raw, uri, read_bytes=1 << 20)
        counts = self._groups.counts
        self._starts = [sum(counts[:group]) for group in range(len(counts))]
        self._kind = image_column(self._groups, self._column, uri)
        self._uri = uri

    def _row(self, offset: int) -> Row:
        value = self._value(*self._number(offset))
        if value is None:
            return _error("not_found", "the row of the table holds no image")
        if len(value) > self._max_bytes:
            return _error("too_large", f"{len(value)} bytes; the limit is {self._max_bytes}")
        return {"data": value}

    def _value(self, number: int, place: int) -> bytes | None:
        """The bytes of an image of a row; `place` counts in its list."""
        group = self._group_of(number)
        if group != self._group or number < self._batch_start:
            column = self._kind
            is_struct = column.content == "struct" and not column.is_list
            name = f"{column.name}.bytes" if is_struct else column.name
            self._batches = self._groups.batches(group, READS_AT_A_TIME, [name])
            self._group, self._batch_start = group, self._starts[group]
            self._batch = self._next_batch()
        while number >= self._batch_start + self._batch.num_rows:
            self._batch_start += self._batch.num_rows
            self._batch = self._next_batch()
        value = self._batch.column(0)[number - self._batch_start]
        if self._kind.is_list:
            value = value[place]
        if self._kind.content == "struct":
            value = value["bytes"]
        return value.as_py()

    def _next_batch(self) -> pa.RecordBatch:
        for batch in self._batches:
            return batch
        raise OSError(errno.EIO, "it has fewer rows than when it was listed")


def _check_first(rows: Sequence[Row]) -> None:
    """Labelling a million images as errors helps nobody: their bucket or server is what is wrong.

    Raises:
        UserError: it is.
    """
    if len(rows) >= FEWEST_TO_STOP and all(row.get("of_place") for row in rows):
        raise UserError(f"none of the first {len(rows)} images could be read: {rows[0]['error']}")


def _failed(error: FetchError) -> Row:
    return {**_error(error.status, str(error)), "of_place": error.of_place}


def _why_unread(error: Exception) -> Row:
    """Status and error of the images of a table that cannot be read."""
    if isinstance(error, OSError) and not is_damage(error):
        return _failed(FetchError.of(error))
    status = "download_error" if isinstance(error, UserError) else "decode_error"
    return _error(status, f"the table cannot be read: {reason_of(error)}")


def _fault(fault: str | None) -> Row:
    status, _, error = (fault or "").partition(": ")
    return _error(status, error)


def _error(status: str, error: str) -> Row:
    return {"status": status, "error": error}
