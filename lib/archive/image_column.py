"""Finds the column of a table with the images or their names, whatever Arrow type it has."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import pyarrow as pa

from lib.archive.entry import is_image
from lib.archive.row_groups import RowGroups
from lib.common.errors import UserError

URI_COLUMNS = ("uri", "url", "path", "file", "filename", "file_name", "image")
"""Default columns with the names of the images, in order of preference; upper and lower case alike."""
IMAGE_COLUMNS = ("image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
"""Names of columns of bytes that hold images whatever their first values are."""

_SAMPLE = 8  # values that decide what a column holds
_SAMPLED_ROWS = 1000  # rows in which they are looked for
_BATCH_ROWS = 16

ColumnContent = Literal["bytes", "struct", "uri"]
_Look = Literal["image", "text", "other", "nothing"]


class NoImageColumnError(UserError):
    """A table has no column of images, or not the chosen one."""


@dataclass(frozen=True)
class ImageColumn:
    """The column with the images.

    Attributes:
        name: of the column.
        content: "bytes", "struct" for `{bytes, path}`, or "uri".
        is_list: whether each row has a list of these.
    """

    name: str
    content: ColumnContent
    is_list: bool = False


def image_column(groups: RowGroups, chosen: str | None, uri: str) -> ImageColumn:
    """Find the column with the images.

    A column of bytes with a usual name is taken; else the only one whose first values are images; else
    a column with a usual name for names of images.

    Args:
        groups: of the table.
        chosen: column chosen by the user.
        uri: of the table, for messages.

    Raises:
        NoImageColumnError: there is none.
        UserError: several are possible.
    """
    schema = groups.schema
    columns = {field.name: found for field in schema if (found := _column(field))}
    if chosen is not None:
        if chosen not in schema.names:
            raise _no_such(chosen, schema.names, uri)
        if chosen not in columns:
            message = f"column {chosen!r} of {uri!r} holds neither images nor their names"
            raise NoImageColumnError(message)
        return _names_in_bytes(groups, [columns[chosen]]).get(chosen, columns[chosen])
    return _by_name_and_values(groups, list(columns.values()), uri)


def column_of_names(names: list[str], chosen: str | None, uri: str) -> str:
    """Find the column with the names of the images in a table of text.

    Args:
        names: of all columns.
        chosen: column chosen by the user.
        uri: of the table, for messages.

    Raises:
        NoImageColumnError: there is none.
    """
    if chosen is not None:
        if chosen not in names:
            raise _no_such(chosen, names, uri)
        return chosen
    preferred = _preferred([ImageColumn(name, "uri") for name in names])
    if preferred is None:
        raise _none(names, uri)
    return preferred.name


def is_bytes(type_: pa.DataType) -> bool:
    """Whether a type of Arrow holds bytes."""
    types = pa.types
    if types.is_dictionary(type_):
        return is_bytes(type_.value_type)
    return (
        types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_binary_view(type_)
        or types.is_fixed_size_binary(type_)
    )


def is_text(type_: pa.DataType) -> bool:
    """Whether a type of Arrow holds text."""
    types = pa.types
    if types.is_dictionary(type_):
        return is_text(type_.value_type)
    return types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)


def _by_name_and_values(groups: RowGroups, columns: list[ImageColumn], uri: str) -> ImageColumn:
    holding = [column for column in columns if column.content != "uri"]
    usual = [column for column in holding if column.name.lower() in IMAGE_COLUMNS]
    if len(usual) == 1:
        return usual[0]
    looks = {column: _look(groups, column) for column in usual or holding}
    images = [column for column, look in looks.items() if look == "image"]
    if images or usual:
        return _only(images or usual, uri)
    naming = [column for column in columns if column.content == "uri"]
    preferred = _preferred([*naming, *_names_in_bytes(groups, holding).values()])
    if preferred is not None:
        return preferred
    empty = [column for column, look in looks.items() if look == "nothing"]
    if not empty:
        raise _none(groups.schema.names, uri)
    return _only(empty, uri)


def _only(columns: list[ImageColumn], uri: str) -> ImageColumn:
    if len(columns) > 1:
        names = ", ".join(column.name for column in columns)
        raise UserError(f"{uri!r} has several columns of bytes ({names}); choose one with --column")
    return columns[0]


def _preferred(columns: list[ImageColumn]) -> ImageColumn | None:
    known = [column for column in columns if column.name.lower() in URI_COLUMNS]
    return min(known, key=lambda column: URI_COLUMNS.index(column.name.lower()), default=None)


def _names_in_bytes(groups: RowGroups, columns: list[ImageColumn]) -> dict[str, ImageColumn]:
    """The columns of bytes that hold names: some writers of Parquet do not mark text as such."""
    return {
        column.name: ImageColumn(column.name, "uri", column.is_list)
        for column in columns
        if column.content == "bytes"
        and column.name.lower() in URI_COLUMNS
        and column.name.lower() not in IMAGE_COLUMNS
        and _look(groups, column) == "text"
    }


def _column(field: pa.Field) -> ImageColumn | None:
    types, type_ = pa.types, field.type
    is_list = (
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )
    content = _content(type_.value_type if is_list else type_)
    return content and ImageColumn(field.name, content, is_list)


def _content(type_: pa.DataType) -> ColumnContent | None:
    if is_bytes(type_):
        return "bytes"
    if pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0:
        return "struct" if is_bytes(type_.field("bytes").type) else None
    return "uri" if is_text(type_) else None


def _look(groups: RowGroups, column: ImageColumn) -> _Look:
    """What the first values of a column are."""
    values = list(islice(_values(groups, column), _SAMPLE))
    if not values:
        return "nothing"
    if sum(map(_is_image, values)) * 2 >= len(values):
        return "image"
    return "text" if all(map(_is_text, values)) else "other"


def _values(groups: RowGroups, column: ImageColumn) -> Iterator[bytes | str]:
    """The bytes of the first rows; where there are none, the path."""
    batches = (
        batch
        for group in range(len(groups.counts))
        for batch in groups.batches(group, _BATCH_ROWS, [column.name])
    )
    for batch in islice(batches, _SAMPLED_ROWS // _BATCH_ROWS):
        for row in batch.column(0).to_pylist():
            for value in (row or []) if column.is_list else [row]:
                if found := _bytes_or_path(value):
                    yield found


def _bytes_or_path(value: Any) -> bytes | str | None:
    if isinstance(value, dict):
        return value["bytes"] or value.get("path")
    return value


def _is_image(value: bytes | str) -> bool:
    if isinstance(value, str):
        return is_image(value)
    starts = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
    return value.startswith(starts) or value[8:12] == b"WEBP" or value[4:8] == b"ftyp"


def _is_text(value: bytes | str) -> bool:
    try:
        return isinstance(value, str) or value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _no_such(chosen: str, names: list[str], uri: str) -> NoImageColumnError:
    return NoImageColumnError(f"{uri!r} has no column {chosen!r}; it has {', '.join(names)}")


def _none(names: list[str], uri: str) -> NoImageColumnError:
    return NoImageColumnError(
        f"{uri!r} has no column of images; choose the one with their names with --column "
        f"from {', '.join(names)}"
    )
