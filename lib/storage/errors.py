"""What a failed read is: a status for the label row and one line for people."""

from typing import Literal, NamedTuple

FetchStatus = Literal["not_found", "access_denied", "download_error", "too_large"]


class FetchError(Exception):
    """Bytes that cannot be read; the message is one line.

    Attributes:
        status: `not_found`, `access_denied`, `too_large` or, for all else, `download_error`.
    """

    def __init__(self, status: FetchStatus, message: str) -> None:
        super().__init__(message)
        self.status: FetchStatus = status


class Fetched(NamedTuple):
    """Bytes, and an etag that changes with them; empty where the storage has none."""

    data: bytes
    etag: str
