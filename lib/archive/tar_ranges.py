"""Lists the images of tars by byte ranges that are read independently."""

import io
from collections.abc import Iterator
from typing import NamedTuple, cast

from lib.archive.entry import Entry, File, Skip, is_image
from lib.archive.selection import SYSTEM_FILE
from lib.archive.system_files import is_system_file
from lib.archive.tar import TarError, buffered, iter_members
from lib.storage.fetch import open_file
from lib.storage.options import StorageOptions
from lib.storage.uris import scheme_of

RANGE_BYTES = 128 << 20
"""Finding the first header of a range reads up to 17 MB more: ranges are much larger."""


class Range(NamedTuple):
    """Bytes of a tar: the members whose headers begin in [start, end).

    Attributes:
        tar: the file.
        start: first byte.
        end: byte behind the last one.
        options: how files are reached.
        all_files: take system files, too.
    """

    tar: File
    start: int
    end: int
    options: StorageOptions
    all_files: bool

    def entries(self) -> list[Entry | Skip]:
        """The images of the range; a damage or failure is one entry with a fault.

        Raises:
            OSError: the storage fails.
        """
        found: list[Entry | Skip] = []
        try:
            found += self._members()
        except TarError as error:
            # The reader of a range may follow the headers from the beginning of the tar. It ignores
            # damage before its range, which the reader of another range reports.
            if error.offset >= self.start or self.start == 0:
                found.append(self._fault(error.offset, "decode_error", str(error)))
        except OSError as error:
            if scheme_of(self.tar.uri) and not isinstance(
                error, FileNotFoundError | PermissionError
            ):
                raise  # may be transient: the listing stops, and continues at the next start
            reason = error.strerror or type(error).__name__
            found.append(
                self._fault(self.start, "download_error", f"the tar cannot be read: {reason}")
            )
        return found

    def _members(self) -> Iterator[Entry | Skip]:
        uri, _, etag = self.tar
        with open_file(uri, self.options) as raw:
            # Of a local file only the headers are read. A remote file is read completely, which is
            # faster than a request for each header.
            file = buffered(cast(io.RawIOBase, raw)) if scheme_of(uri) else raw
            for name, offset, size in iter_members(file, self.start, self.end):
                if not self.all_files and is_system_file(name):
                    yield Skip(SYSTEM_FILE)
                elif is_image(name):
                    yield Entry(f"{uri}#{name}", size, etag, uri, offset)
                else:
                    yield Skip("other file type")

    def _fault(self, offset: int, status: str, reason: str) -> Entry:
        uri, _, etag = self.tar
        place = f"{uri}#[from byte {offset}]"
        return Entry(place, None, etag, uri, offset, fault=f"{status}: {reason}")


def ranges(tar: File, options: StorageOptions, all_files: bool) -> Iterator[Range]:
    """Cut a tar into ranges for independent readers.

    Args:
        tar: the file.
        options: how files are reached.
        all_files: take system files, too.
    """
    for start in range(0, max(1, tar.size), RANGE_BYTES):
        yield Range(tar, start, start + RANGE_BYTES, options, all_files)
