"""What there is to label: local folders and files → a manifest; and the bytes behind each entry.

The listing is sorted within each source and follows no symbolic link: a link would make a file
count twice, lead out of the archive, or round in circles. A source that is a link is followed.
"""

# A Path for each of millions of files would take longer than the listing:
# ruff: noqa: PTH100, PTH110, PTH112, PTH116, PTH118, PTH208

import dataclasses
import errno
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from lib.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
PART_ROWS = 100_000
GROUP_ROWS = 10_000
SCHEMA = pa.schema(
    [("id", pa.int64()), ("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string())]
)

FetchStatus = Literal["not_found", "access_denied", "download_error", "too_large"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_FILE_SCHEME = "file://"
_SUMMARY = "_summary.json"  # readers of Parquet folders pass over names that begin with _

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the archive.

    Attributes:
        uri: The absolute path as it is; for a path that is no UTF-8, which Arrow strings cannot
            hold, a percent-encoded `file:///` URI. `local_path` undoes both.
        size: In bytes.
        etag: Changes when the file does.
    """

    uri: str
    size: int
    etag: str


class Archive:
    """The images of one or more sources, to be iterated over once.

    Memory grows with the largest single folder, not with the archive.

    Attributes:
        skipped: What was passed over so far, counted by reason: "other file type", "symbolic link",
            "not a regular file", "unreadable" (files or whole folders; each of these is logged).
    """

    def __init__(self, sources: Sequence[str], limit: int | None = None) -> None:
        """Check the sources; nothing is listed yet.

        Args:
            sources: Folders, which are searched recursively, and image files, as paths or as
                `file:///` URIs. What lies in several of them is listed once.
            limit: Stop after so many images.

        Raises:
            UserError: A source is missing, cannot be read, or is of a kind that is not supported.
        """
        self.skipped: Counter[str] = Counter()
        self._sources = sources
        self._limit = limit
        self._roots = _outermost([_local_root(source) for source in sources])

    def __iter__(self) -> Iterator[Entry]:
        """List the images.

        Raises:
            UserError: At the end, where there was none.
        """
        found = itertools.chain.from_iterable(map(self._walk, self._roots))
        empty = True
        for entry in itertools.islice(found, self._limit):
            empty = False
            yield entry
        if empty:
            raise UserError(self._why_empty())

    def _walk(self, root: str) -> Iterator[Entry]:
        """Depth first, each folder by its sorted names; no recursion, for folders nest deep."""
        levels = [iter([root])]
        while levels:
            path = next(levels[-1], None)
            if path is None:
                levels.pop()
                continue
            try:
                info = os.stat(path, follow_symlinks=path == root)
                if stat.S_ISDIR(info.st_mode):
                    levels.append(_children(path))
                elif reason := _why_skipped(path, info.st_mode):
                    self.skipped[reason] += 1
                else:
                    yield Entry(_uri(path), info.st_size, f"{info.st_mtime_ns:x}-{info.st_size:x}")
            except OSError as error:
                logger.warning("passed over %r: %s", path, error.strerror)
                self.skipped["unreadable"] += 1

    def _why_empty(self) -> str:
        sources = ", ".join(map(repr, self._sources))
        skipped = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items())
        names = ", ".join(SUFFIXES)
        return f"no image in {sources} (passed over: {skipped or 'nothing'}); images end in {names}"


@dataclass(frozen=True)
class ManifestSummary:
    """What a manifest holds.

    Attributes:
        images: Its rows.
        bytes: The sum of their sizes.
        skipped: Reason → how many files were passed over, as `Archive.skipped` has it.
        digest: SHA-256, in hexadecimal, of every row's uri, size and etag in order.
    """

    images: int
    bytes: int
    skipped: dict[str, int]
    digest: str


def write_manifest(archive: Archive, folder: str) -> ManifestSummary:
    """List the archive into Parquet files of the columns `SCHEMA`; `id` counts from 0.

    The folder appears at once and complete, with its summary, or not at all. Files hold
    `PART_ROWS` rows in row groups of `GROUP_ROWS`, and no more than one of them is in memory.

    Raises:
        FileExistsError: The folder is there already.
        UserError: The archive holds no image.
    """
    target = Path(folder)
    if target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), folder)
    unfinished = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        summary = _write_parts(archive, unfinished)
        (unfinished / _SUMMARY).write_text(json.dumps(dataclasses.asdict(summary)))
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return summary


def read_summary(folder: str) -> ManifestSummary:
    """The summary of a manifest that was written before.

    Raises:
        FileNotFoundError: There is no complete manifest.
    """
    return ManifestSummary(**json.loads((Path(folder) / _SUMMARY).read_text()))


class FetchError(Exception):
    """Bytes that could not be had; the message is one line.

    Attributes:
        status: `not_found`, `access_denied`, `too_large` or, for all else, `download_error`.
    """

    def __init__(self, status: FetchStatus, message: str) -> None:
        super().__init__(message)
        self.status: FetchStatus = status


def fetch(uri: str, max_bytes: int) -> bytes:
    """The bytes of an entry.

    Raises:
        FetchError: There is no such file, or it cannot be read, or is no regular file, or is larger
            than `max_bytes`, of which nothing is read.
    """
    try:
        with open(local_path(uri), "rb", opener=_open_without_waiting) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise FetchError("download_error", "not a regular file")
            if info.st_size > max_bytes:
                raise FetchError("too_large", f"{info.st_size} bytes; the limit is {max_bytes}")
            return file.read(max_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FetchError("not_found", "no such file") from error
    except PermissionError as error:
        raise FetchError("access_denied", "no permission to read the file") from error
    except OSError as error:
        raise FetchError("download_error", error.strerror or type(error).__name__) from error


def local_path(uri: str) -> Path:
    """The file of a local entry's uri, or of a source: a path, or a `file:///` URI."""
    if uri.startswith(f"{_FILE_SCHEME}/"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(_FILE_SCHEME))))
    return Path(uri)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe would otherwise wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _uri(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return _FILE_SCHEME + quote_from_bytes(os.fsencode(path))
    return path


def _local_root(source: str) -> str:
    """The absolute path of a source. Buckets, tars and tables will branch off here."""
    scheme = _SCHEME.match(source)
    if scheme and not source.startswith(f"{_FILE_SCHEME}/"):
        raise UserError(f"{source!r} is not supported yet: give a local folder or image file")
    path = os.path.abspath(local_path(source))
    if not os.path.exists(path):
        raise UserError(f"no such folder or file: {source!r}; check the spelling of the path")
    folder = os.path.isdir(path)
    if not folder and not path.lower().endswith(SUFFIXES):
        raise UserError(f"{source!r} is not supported yet: give a local folder or image file")
    if not os.access(path, os.R_OK | os.X_OK if folder else os.R_OK, effective_ids=True):
        raise UserError(f"no permission to read {source!r}; check its owner and mode")
    return path


def _outermost(roots: list[str]) -> list[str]:
    """The roots without those that lie within another one or repeat it."""
    real: dict[str, str] = {}
    for root in roots:
        real.setdefault(os.path.realpath(root), root)
    return [
        root
        for path, root in real.items()
        if not any(str(parent) in real for parent in Path(path).parents)
    ]


def _children(folder: str) -> Iterator[str]:
    names = sorted(os.listdir(folder))
    return (os.path.join(folder, name) for name in names)


def _why_skipped(path: str, mode: int) -> str | None:
    if stat.S_ISLNK(mode):
        return "symbolic link"
    if not path.lower().endswith(SUFFIXES):
        return "other file type"
    return None if stat.S_ISREG(mode) else "not a regular file"


def _write_parts(archive: Archive, folder: Path) -> ManifestSummary:
    images = size = 0
    digest = hashlib.sha256()
    for number, part in enumerate(_parts(archive)):
        columns = {
            "id": range(images, images + len(part)),
            "uri": [entry.uri for entry in part],
            "size": [entry.size for entry in part],
            "etag": [entry.etag for entry in part],
        }
        table = pa.table(columns, schema=SCHEMA)
        pq.write_table(table, folder / f"part-{number:05}.parquet", row_group_size=GROUP_ROWS)
        # No path holds a NUL, so different rows never run together to the same bytes.
        digest.update("".join(f"{e.uri}\0{e.size}\0{e.etag}\0" for e in part).encode())
        images += len(part)
        size += sum(entry.size for entry in part)
    return ManifestSummary(images, size, dict(archive.skipped), digest.hexdigest())


def _parts(archive: Archive) -> Iterator[list[Entry]]:
    entries = iter(archive)
    while part := list(itertools.islice(entries, PART_ROWS)):
        yield part
