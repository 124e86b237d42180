"""The images of tables: Parquet, CSV, JSON Lines.

Parquet may hold the images themselves, in a column of bytes or of `{bytes, path}` as the data sets of
Hugging Face do. Otherwise a column names them: absolute, or relative to the folder that the table is in.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lib.archive.entry import PARQUET, Entry, File, suffix_of
from lib.archive.image_names import is_data_uri, named_uri
from lib.common.errors import UserError, reason_of
from lib.storage.fetch import open_file
from lib.storage.options import StorageOptions

URI_COLUMNS = ("uri", "url", "path", "file", "filename", "file_name", "image")
"""Default columns with the names of the images, in order of preference."""
BATCH_ROWS = 10_000
csv.field_size_limit(64 << 20)
"""Characters of a field of CSV; Python's 128 KiB are too few for images in `data:` URIs."""

ColumnContent = Literal["bytes", "struct", "uri"]


@dataclass(frozen=True)
class ImageColumn:
    """The column with the images.

    Attributes:
        name: of the column.
        content: "bytes", "struct" for `{bytes, path}`, or "uri".
    """

    name: str
    content: ColumnContent


def image_column(schema: pa.Schema, chosen: str | None, uri: str) -> ImageColumn:
    """Find the column with the images.

    Args:
        schema: of the table.
        chosen: by the user; None takes the only column of bytes, or one of `URI_COLUMNS`.
        uri: of the table, for messages.

    Raises:
        UserError: there is none, or several are possible.
    """
    if chosen is not None:
        if chosen not in schema.names:
            raise UserError(f"{uri!r} has no column {chosen!r}; it has {', '.join(schema.names)}")
        kind = _content(schema.field(chosen).type)
        if kind is None:
            raise UserError(f"column {chosen!r} of {uri!r} holds neither images nor their names")
        return ImageColumn(chosen, kind)
    kinds = {name: _content(schema.field(name).type) for name in schema.names}
    holding = [
        ImageColumn(name, kind) for name, kind in kinds.items() if kind in ("bytes", "struct")
    ]
    if len(holding) > 1:
        names = ", ".join(column.name for column in holding)
        raise UserError(f"{uri!r} has several columns of bytes ({names}); choose one with --column")
    naming = [ImageColumn(name, "uri") for name in URI_COLUMNS if kinds.get(name) == "uri"]
    if not holding + naming:
        raise UserError(
            f"{uri!r} has no column of images; choose the one with their names with --column "
            f"from {', '.join(schema.names)}"
        )
    return (holding + naming)[0]


def _content(type_: pa.DataType) -> ColumnContent | None:
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return "bytes"
    if pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0:
        return "struct"
    return "uri" if pa.types.is_string(type_) or pa.types.is_large_string(type_) else None


@dataclass(frozen=True)
class Table:
    """A table of images.

    Attributes:
        file: where it is.
        base: the folder to which names of images are relative.
        column: with the images, if chosen.
        carry: further columns, whose values go with each image.
        options: how files are reached.
    """

    file: File
    base: str
    column: str | None
    carry: Sequence[str]
    options: StorageOptions

    def carried(self) -> list[pa.Field]:
        """The names and types of the carried columns; strings where the table has no types.

        Raises:
            UserError: the table cannot be read, or lacks a column.
        """
        schema = self._schema()
        self._check_carried(schema)
        image_column(schema, self.column, self.file.uri)
        return [pa.field(name, schema.field(name).type) for name in self.carry]

    def _check_carried(self, schema: pa.Schema) -> None:
        missing = [name for name in self.carry if name not in schema.names]
        if missing:
            raise UserError(
                f"{self.file.uri!r} has no column {', '.join(missing)}; it has "
                f"{', '.join(schema.names)}"
            )

    def holds_images(self) -> bool:
        """Whether the table contains the images themselves.

        Raises:
            UserError: the table cannot be read.
        """
        return any(_content(field.type) in ("bytes", "struct") for field in self._schema())

    def entries(self, first: int = 0) -> Iterator[tuple[int, Entry]]:
        """The images by number of row, from one on.

        Raises:
            UserError: the table cannot be read.
        """
        try:
            rows = (
                self._parquet(first) if suffix_of(self.file.uri) == PARQUET else self._text(first)
            )
            yield from rows
        except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"cannot read {self.file.uri!r}: {reason_of(error)}") from None

    def _schema(self) -> pa.Schema:
        try:
            with open_file(self.file.uri, self.options) as file:
                if suffix_of(self.file.uri) == PARQUET:
                    return pq.ParquetFile(file).schema_arrow
                _, row = next(iter(self._rows(file)), (0, {}))
        except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"cannot read {self.file.uri!r}: {reason_of(error)}") from None
        return pa.schema([(name, pa.string()) for name in row])

    def _parquet(self, first: int) -> Iterator[tuple[int, Entry]]:
        with open_file(self.file.uri, self.options) as file:
            parquet = pq.ParquetFile(file)
            column = image_column(parquet.schema_arrow, self.column, self.file.uri)
            self._check_carried(parquet.schema_arrow)
            number = 0
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                if number + rows > first:
                    for place, entry in self._group(parquet, group, number, column):
                        if place >= first:
                            yield place, entry
                number += rows

    def _group(
        self, parquet: pq.ParquetFile, group: int, number: int, column: ImageColumn
    ) -> Iterator[tuple[int, Entry]]:
        wanted = list(self.carry)
        if column.content == "uri":
            wanted.append(column.name)
        elif column.content == "struct" and _has_path(parquet.schema_arrow, column):
            wanted.append(f"{column.name}.path")
        if not wanted:
            for row in range(number, number + parquet.metadata.row_group(group).num_rows):
                yield row, self._entry(row, None, column, ())
            return
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted):
            names = self._names(batch, column)
            carried = [batch[name].to_pylist() for name in self.carry]
            for row in range(batch.num_rows):
                extra = tuple(values[row] for values in carried)
                yield number, self._entry(number, names[row] if names else None, column, extra)
                number += 1

    def _names(self, batch: pa.RecordBatch, column: ImageColumn) -> list[str | None] | None:
        if column.name not in batch.schema.names:
            return None
        values = batch[column.name]
        return (values.field("path") if column.content == "struct" else values).to_pylist()

    def _entry(
        self, number: int, name: str | None, column: ImageColumn, extra: tuple[Any, ...]
    ) -> Entry:
        uri, _, etag = self.file
        if column.content == "uri":
            return self._named(number, name, extra)
        return Entry(f"{uri}#{name or number}", None, etag, uri, number, extra=extra)

    def _text(self, first: int) -> Iterator[tuple[int, Entry]]:
        column = image_column(self._schema(), self.column, self.file.uri).name
        with open_file(self.file.uri, self.options) as file:
            for number, row in self._rows(file):
                if number >= first:
                    extra = tuple(_text_of(row.get(name)) for name in self.carry)
                    yield number, self._named(number, _text_of(row.get(column)), extra)

    def _named(self, number: int, name: str | None, extra: tuple[Any, ...]) -> Entry:
        """The entry of an image that a row names."""
        if not name:
            nothing = "not_found: the row of the table names no image"
            return Entry(f"{self.file.uri}#{number}", None, None, fault=nothing, extra=extra)
        if is_data_uri(name):  # it would make every label row as large as its image
            return Entry(f"{self.file.uri}#{number}", None, None, container=name, extra=extra)
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


def _has_path(schema: pa.Schema, column: ImageColumn) -> bool:
    type_ = schema.field(column.name).type
    place = type_.get_field_index("path")
    return place >= 0 and pa.types.is_string(type_.field(place).type)


def _text_of(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    # JSON may contain lone surrogates, which UTF-8 cannot encode.
    return text.encode(errors="replace").decode()
