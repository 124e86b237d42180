"""Tars → the images in them, found by reading ranges of bytes independently of each other."""

import io
from collections.abc import Iterator
from typing import NamedTuple, cast

from lib.archive.entry import Entry, File, Skip, is_image
from lib.archive.tar import TarError, buffered, iter_members
from lib.storage.fetch import open_file
from lib.storage.options import S3Options
from lib.storage.uris import scheme_of

RANGE_BYTES = 128 << 20
"""Finding the first header of a range reads up to 17 MB more: no smaller than a few times that."""


class Range(NamedTuple):
    """Bytes of a tar: the members whose headers begin in [start, end)."""

    tar: File
    start: int
    end: int
    options: S3Options

    def entries(self) -> list[Entry | Skip]:
        """The images of the range; what cannot be read is one entry with a fault.

        Raises:
            OSError: the storage does not answer.
        """
        found: list[Entry | Skip] = []
        try:
            found += self._members()
        except TarError as error:
            # The reader of a range may have to follow the headers from the beginning of the tar, and
            # then meets a damage that lies before its range and is reported by another one.
            if error.offset >= self.start or self.start == 0:
                found.append(self._fault(error.offset, "decode_error", str(error)))
        except OSError as error:
            if scheme_of(self.tar.uri) and not isinstance(
                error, FileNotFoundError | PermissionError
            ):
                raise  # it may pass: the listing stops, and goes on when it is started again
            reason = error.strerror or type(error).__name__
            found.append(
                self._fault(self.start, "download_error", f"the tar cannot be read: {reason}")
            )
        return found

    def _members(self) -> Iterator[Entry | Skip]:
        uri, _, etag = self.tar
        with open_file(uri, self.options) as raw:
            # A local file is asked for its headers alone; far away, a request for each would be slower
            # than to read all.
            file = buffered(cast(io.RawIOBase, raw)) if scheme_of(uri) else raw
            for name, offset, size in iter_members(file, self.start, self.end):
                if is_image(name):
                    yield Entry(f"{uri}#{name}", size, etag, uri, offset)
                else:
                    yield Skip("other file type")

    def _fault(self, offset: int, status: str, reason: str) -> Entry:
        uri, _, etag = self.tar
        place = f"{uri}#[from byte {offset}]"
        return Entry(place, None, etag, uri, offset, fault=f"{status}: {reason}")


def ranges(tar: File, options: S3Options) -> Iterator[Range]:
    """Cut a tar into ranges for independent readers."""
    for start in range(0, max(1, tar.size), RANGE_BYTES):
        yield Range(tar, start, start + RANGE_BYTES, options)
