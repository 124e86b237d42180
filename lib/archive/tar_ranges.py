"""Lists the images of tars by byte ranges that are read independently."""

from collections.abc import Iterator
from typing import NamedTuple

from lib.archive.entry import Entry, File, Skip, is_image
from lib.archive.selection import SYSTEM_FILE
from lib.archive.system_files import is_system_file
from lib.archive.tar import Member, TarError, iter_members
from lib.archive.tar_contents import KINDS_WITH_CONTENT, TarContents, open_headers
from lib.storage.options import StorageOptions
from lib.storage.uris import scheme_of

RANGE_BYTES = 128 << 20
"""Finding the first header of a range reads up to 17 MB more: ranges are much larger."""

Found = tuple[int, Entry | Skip]
"""A member of a tar, and its place there. Places rise; the offset of a hard link's image need not."""


class Range(NamedTuple):
    """Bytes of a tar: the members whose headers begin in [start, end).

    Attributes:
        tar: the file.
        start: first byte.
        end: byte behind the last one.
        options: how files are reached.
        all_files: take system files, too.
        contents: of the members of the whole tar.
    """

    tar: File
    start: int
    end: int
    options: StorageOptions
    all_files: bool
    contents: TarContents

    def members(self) -> list[Found]:
        """The images of the range and what is passed over; damage or failure is one entry with a fault.

        Raises:
            OSError: the storage fails.
        """
        found: list[Found] = []
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

    def _members(self) -> Iterator[Found]:
        with open_headers(self.tar.uri, self.options) as file:
            for member in iter_members(file, self.start, self.end):
                yield member.offset, self._found(member)

    def _found(self, member: Member) -> Entry | Skip:
        if not self.all_files and is_system_file(member.name):
            return Skip(SYSTEM_FILE)
        if member.kind not in KINDS_WITH_CONTENT:
            return Skip(member.kind)
        if not is_image(member.name):
            return Skip("other file type")
        uri, _, etag = self.tar
        offset, size, fault = self.contents.of(member)
        return Entry(f"{uri}#{member.name}", size, etag, uri, offset, fault)

    def _fault(self, offset: int, status: str, reason: str) -> Found:
        uri, _, etag = self.tar
        place = f"{uri}#[from byte {offset}]"
        return offset, Entry(place, None, etag, uri, offset, fault=f"{status}: {reason}")


def ranges(tar: File, options: StorageOptions, all_files: bool) -> Iterator[Range]:
    """Cut a tar into ranges for independent readers.

    Args:
        tar: the file.
        options: how files are reached.
        all_files: take system files, too.
    """
    contents = TarContents(tar.uri, options)
    for start in range(0, max(1, tar.size), RANGE_BYTES):
        yield Range(tar, start, start + RANGE_BYTES, options, all_files, contents)
