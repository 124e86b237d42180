"""The images of tables: Parquet, Arrow, CSV, JSON Lines.

Parquet and Arrow may hold the images themselves, in a column of bytes or of `{bytes, path}` as the data
sets of Hugging Face do, or in a column of lists of these. Otherwise a column names them: absolute, or
relative to the folder that the table is in.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from lib.archive.entry import TABLES_OF_IMAGES, Entry, File, suffix_of
from lib.archive.image_column import ImageColumn, column_of_names, image_column, is_bytes, is_text
from lib.archive.image_names import is_data_uri, named_uri
from lib.archive.row_groups import RowGroups, open_groups
from lib.archive.splits import SPLIT
from lib.common.errors import UserError, reason_of
from lib.storage.fetch import open_file
from lib.storage.options import StorageOptions
from lib.storage.uris import scheme_of

BATCH_ROWS = 10_000
BATCH_ROWS_OF_IMAGES = 16
LIST_PLACES = 1 << 31
"""The n-th image of row r of a column of lists is at place `r * LIST_PLACES + n`."""
csv.field_size_limit(64 << 20)
"""Characters of a field of CSV; Python's 128 KiB are too few for images in `data:` URIs."""

_FAILURES = (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error)


class TableError(UserError):
    """The table is damaged, or cannot be read.

    Attributes:
        status: of its images.
        reason: in words.
        place: up to which it could be read, as in `Table.entries`.
        row: the same as the number of a row.
    """

    def __init__(self, uri: str, status: str, reason: str, place: int = 0, row: int = 0) -> None:
        super().__init__(f"cannot read {uri!r}: {reason}")
        self.status, self.reason, self.place, self.row = status, reason, place, row


def is_damage(error: Exception) -> bool:
    """Whether Arrow could not understand the bytes of a table; failures of storage have a number."""
    return not isinstance(error, OSError) or error.errno is None


@dataclass(frozen=True)
class Table:
    """A table of images.

    Attributes:
        file: where it is.
        base: the folder to which names of images are relative.
        column: with the images, if chosen.
        carry: further columns, whose values go with each image.
        options: how files are reached.
        split: that its place names, for the column `split` where it has none.
    """

    file: File
    base: str
    column: str | None
    carry: Sequence[str]
    options: StorageOptions
    split: str | None = None

    def carried(self) -> list[pa.Field]:
        """The names and types of the carried columns; strings where the table has no types.

        Raises:
            TableError: the table cannot be read.
            UserError: it lacks a column.
        """
        schema = self._schema()
        self._check_carried(schema)
        there = {field.name: _plain(field.type) for field in schema}
        return [pa.field(name, there.get(name, pa.string())) for name in self.carry]

    def _check_carried(self, schema: pa.Schema) -> None:
        known = schema.names if self.split is None else [*schema.names, SPLIT]
        missing = [name for name in self.carry if name not in known]
        if missing:
            raise UserError(
                f"{self.file.uri!r} has no column {', '.join(missing)}; it has "
                f"{', '.join(schema.names)}"
            )

    def image_column(self) -> ImageColumn:
        """The column with the images.

        Raises:
            TableError: the table cannot be read.
            NoImageColumnError: there is none.
            UserError: several are possible.
        """
        try:
            with open_file(self.file.uri, self.options) as file:
                if self._has_groups:
                    return image_column(
                        open_groups(file, self.file.uri), self.column, self.file.uri
                    )
        except _FAILURES as error:
            raise self._failure(error) from None
        return ImageColumn(column_of_names(self._schema().names, self.column, self.file.uri), "uri")

    def entries(self, first: int = 0) -> Iterator[tuple[int, Entry]]:
        """The images by their place, from one on: the number of the row; `LIST_PLACES` for lists.

        Raises:
            TableError: the table cannot be read; `place` does not depend on `first`.
            UserError: as `carried` and `image_column`.
        """
        yield from self._in_groups(first) if self._has_groups else self._text(first)

    @property
    def _has_groups(self) -> bool:
        return suffix_of(self.file.uri) in TABLES_OF_IMAGES

    def _failure(self, error: Exception, place: int = 0, row: int = 0) -> UserError:
        uri, reason = self.file.uri, reason_of(error)
        if is_damage(error):
            return TableError(uri, "decode_error", reason, place, row)
        if not scheme_of(uri) or isinstance(error, FileNotFoundError | PermissionError):
            return TableError(uri, "download_error", reason, place, row)
        # It may be transient: the listing stops, and continues at the next start.
        return UserError(f"cannot read {uri!r}: {reason}")

    def _schema(self) -> pa.Schema:
        try:
            with open_file(self.file.uri, self.options) as file:
                if self._has_groups:
                    return open_groups(file, self.file.uri).schema
                _, row = next(iter(self._rows(file)), (0, {}))
        except _FAILURES as error:
            raise self._failure(error) from None
        return pa.schema([(name, pa.string()) for name in row])

    def _in_groups(self, first: int) -> Iterator[tuple[int, Entry]]:
        number = reached = 0
        try:
            with open_file(self.file.uri, self.options) as file:
                groups = open_groups(file, self.file.uri)
                if not sum(groups.counts):
                    return
                column = image_column(groups, self.column, self.file.uri)
                self._check_carried(groups.schema)
                for group, rows in enumerate(groups.counts):
                    end = number + rows
                    # A damaged group right before `first` ends the table, as it did before.
                    if _place(column, end) >= first:
                        for place, entry in self._group(groups, group, number, column):
                            if place >= first:
                                yield place, entry
                            reached = place + 1
                    number = end
                    reached = _place(column, number)
        except _FAILURES as error:
            raise self._failure(error, reached, number) from None

    def _group(
        self, groups: RowGroups, group: int, number: int, column: ImageColumn
    ) -> Iterator[tuple[int, Entry]]:
        wanted = _leaves(groups, group, column)
        there = [name for name in self.carry if name in groups.schema.names]
        if not wanted and not there:
            for row in range(number, number + groups.counts[group]):
                yield row, self._held(row, str(row), (self.split,) * len(self.carry))
            return
        reads_images = column.content != "uri" and column.name in wanted
        rows = BATCH_ROWS_OF_IMAGES if reads_images else BATCH_ROWS
        for batch in groups.batches(group, rows, [*there, *wanted]):
            values = batch[column.name].to_pylist() if wanted else [None] * batch.num_rows
            missing = [self.split] * batch.num_rows
            carried = [batch[n].to_pylist() if n in there else missing for n in self.carry]
            for row in range(batch.num_rows):
                extra = tuple(cells[row] for cells in carried)
                yield from self._images(number, values[row], column, extra)
                number += 1

    def _images(
        self, number: int, value: Any, column: ImageColumn, extra: tuple[Any, ...]
    ) -> Iterator[tuple[int, Entry]]:
        """The images of one row."""
        place = _place(column, number)
        if not column.is_list:
            yield place, self._image(place, str(number), value, column, extra)
            return
        for n, picture in enumerate(value or ()):
            image = self._image(place + n, f"{number}.{n}", picture, column, extra)
            yield place + n, image
        if not value:
            yield place, self._named(str(number), None, extra)

    def _image(
        self, place: int, label: str, value: Any, column: ImageColumn, extra: tuple[Any, ...]
    ) -> Entry:
        if column.content == "uri":
            return self._named(label, _decoded(value), extra)
        if not isinstance(value, dict):
            return self._held(place, label, extra)
        path = _decoded(value.get("path"))
        if path and value.get("bytes", b"") is None:
            return self._named(label, path, extra)
        return self._held(place, label if column.is_list else path or label, extra)

    def _held(self, place: int, name: str, extra: tuple[Any, ...]) -> Entry:
        """The entry of an image that the table holds."""
        uri, _, etag = self.file
        return Entry(f"{uri}#{name}", None, etag, uri, place, extra=extra)

    def rest(self, error: TableError) -> Entry:
        """The entry of all images behind a damage."""
        uri, _, etag = self.file
        fault = f"{error.status}: the table cannot be read: {error.reason}"
        return Entry(f"{uri}#[from row {error.row}]", None, etag, uri, error.place, fault)

    def _text(self, first: int) -> Iterator[tuple[int, Entry]]:
        column = self.image_column().name
        try:
            with open_file(self.file.uri, self.options) as file:
                for number, row in self._rows(file):
                    if number >= first:
                        given = row if self.split is None else {SPLIT: self.split} | row
                        extra = tuple(_text_of(given.get(name)) for name in self.carry)
                        yield number, self._named(str(number), _text_of(row.get(column)), extra)
        except _FAILURES as error:
            raise self._failure(error) from None

    def _named(self, label: str, name: str | None, extra: tuple[Any, ...]) -> Entry:
        """The entry of an image that a row names."""
        if not name:
            nothing = "not_found: the row of the table names no image"
            return Entry(f"{self.file.uri}#{label}", None, None, fault=nothing, extra=extra)
        if is_data_uri(name):  # it would make every label row as large as its image
            return Entry(f"{self.file.uri}#{label}", None, None, container=name, extra=extra)
        uri = named_uri(name, self.base)
        if uri is None:
            outside = "not_found: the name leads out of the bucket"
            return Entry(f"{self.base}/{name}", None, None, fault=outside, extra=extra)
        return Entry(uri, None, None, extra=extra)

    def _rows(self, file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        buffered = io.BufferedReader(cast(io.RawIOBase, file), 1 << 20)
        text = io.TextIOWrapper(buffered, "utf-8-sig", newline="")
        if suffix_of(self.file.uri) == ".csv":
            yield from enumerate(csv.DictReader(text))
            return
        for number, line in enumerate(line for line in text if line.strip()):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"line {number + 1} of {self.file.uri!r} is not a JSON object")
            yield number, row


def _place(column: ImageColumn, row: int) -> int:
    return row * LIST_PLACES if column.is_list else row


def _leaves(groups: RowGroups, group: int, column: ImageColumn) -> list[str]:
    """What the listing must read of the images of a group of rows: names, and whether bytes are null."""
    if column.is_list or column.content == "uri":
        return [column.name]
    if column.content == "bytes" or not _has_path(groups.schema.field(column.name).type):
        return []
    if groups.may_hold_null(group, column.name, "bytes"):
        return [column.name]
    return [f"{column.name}.path"]


def _has_path(type_: pa.StructType) -> bool:
    place = type_.get_field_index("path")
    return place >= 0 and (is_text(type_.field(place).type) or is_bytes(type_.field(place).type))


def _plain(type_: pa.DataType) -> pa.DataType:
    """The type of a carried column in the manifest: not all programs know views and dictionaries."""
    if pa.types.is_dictionary(type_):
        return _plain(type_.value_type)
    if pa.types.is_string_view(type_):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(type_) else type_


def _decoded(name: str | bytes | None) -> str | None:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def _text_of(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    # JSON may contain lone surrogates, which UTF-8 cannot encode.
    return text.encode(errors="replace").decode()
