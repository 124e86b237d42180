"""Failures of storage: `OSError`s of one line, and what a failed read is in a label row."""

import errno
from typing import Literal, NamedTuple

FetchStatus = Literal["not_found", "access_denied", "download_error", "too_large"]

_STATUSES: dict[int, FetchStatus] = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EACCES: "access_denied",
    errno.EPERM: "access_denied",
    errno.EFBIG: "too_large",
}
_NUMBERS = {status: number for number, status in reversed(_STATUSES.items())}


class FetchError(Exception):
    """Bytes that cannot be read; the message is one line.

    Attributes:
        status: `not_found`, `access_denied`, `too_large` or, for all else, `download_error`.
        of_place: whether nothing else can be read there, either: the host is unknown, its certificate or
            the credentials are refused, or the bucket does not exist.
    """

    def __init__(self, status: FetchStatus, message: str, of_place: bool = False) -> None:
        super().__init__(message)
        self.status: FetchStatus = status
        self.of_place = of_place

    @staticmethod
    def of(error: OSError) -> "FetchError":
        """The same for a failed operation on a file."""
        status = _STATUSES.get(error.errno or 0, "download_error")
        message = error.strerror or str(error).splitlines()[0]
        return FetchError(status, message, isinstance(error, PlaceError))


class Fetched(NamedTuple):
    """Bytes, and an etag that changes with them; empty where the storage has none."""

    data: bytes
    etag: str


class PlaceError(OSError):
    """A failure of a whole bucket or server, not of one object."""


class RegionError(OSError):
    """The bucket is in another region than the request was for."""


class ConditionsError(OSError):
    """The storage does not know conditional writes."""


def storage_error(status: FetchStatus, message: str) -> OSError:
    """The `OSError` of a status: `FileNotFoundError`, `PermissionError` and so on."""
    return OSError(_NUMBERS.get(status, errno.EIO), message)


def place_error(status: FetchStatus, message: str) -> PlaceError:
    """The `PlaceError` of a status."""
    return PlaceError(_NUMBERS.get(status, errno.EIO), message)
