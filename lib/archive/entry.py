"""The entries of an archive: files, images and skipped files."""

from typing import Any, NamedTuple

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".pjpeg"),
    *(".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".heic", ".heif", ".jp2"),
)
TAR, PARQUET = ".tar", ".parquet"
ARROW = ".arrow"
TABLES = (PARQUET, ARROW, ".csv", ".jsonl", ".ndjson")
TABLES_OF_IMAGES = (PARQUET, ARROW)
"""Those that can hold the images themselves."""


class File(NamedTuple):
    """A file of the archive: an image, or many of them in one."""

    uri: str
    size: int
    etag: str


class Skip(NamedTuple):
    """A skipped file, and the reason.

    Attributes:
        reason: "other file type" and so on.
        uri: of the file, where a better reason may follow from its place.
    """

    reason: str
    uri: str = ""


class Entry(NamedTuple):
    """One image of the archive.

    Attributes:
        uri: The absolute path as it is, or `file:///`, `s3://` and so on (see `lib.storage.uris`). An
            image within a file is `FILE#NAME`: the member of a tar; the path or number of a row of
            a table.
        size: In bytes; None where it is known only after reading.
        etag: Changes when the file does that the image is, or is in; None where it is unknown.
        container: The file that the image is in; or its `data:` URI.
        offset: In a tar the byte at which the image begins; in Parquet the number of its row, in a column
            of lists `lib.archive.tables.LIST_PLACES` times that plus its number in the row; else None.
        fault: `STATUS: REASON` where the listing already found that the image cannot be read.
        extra: The values of the carried columns.
    """

    uri: str
    size: int | None
    etag: str | None
    container: str | None = None
    offset: int | None = None
    fault: str | None = None
    extra: tuple[Any, ...] = ()


def suffix_of(uri: str) -> str:
    """The ending of a file's name, in lower case."""
    name = uri.rsplit("/", 1)[-1]
    return f".{name.rsplit('.', 1)[-1].lower()}" if "." in name else ""


def is_image(uri: str) -> bool:
    """Whether the name has the ending of an image."""
    return suffix_of(uri) in SUFFIXES
