"""Errors of S3 as short messages without addresses, headers or secrets."""

import errno
import re

from lib.storage.retry import Transient

NO_CREDENTIALS = (
    "no AWS credentials here; give them in AWS's environment or files, or use --s3.anonymous"
)
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,60})</Code>")
_TRANSIENT_STATUSES = frozenset({408, 429})
_TRANSIENT_CODES = frozenset({"RequestTimeout", "SlowDown", "InternalError"})


class S3Error(Exception):
    """A failed request; the message is one line without any secret.

    Attributes:
        status: `not_found`, `access_denied`, `too_large` or, for all else, `download_error`.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return self.message


class as_os_errors:  # noqa: N801 - reads like a function
    """Turns an `S3Error` into the `OSError` of a file system."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, S3Error):
            numbers = {"not_found": errno.ENOENT, "access_denied": errno.EACCES}
            raise OSError(numbers.get(error.status, errno.EIO), error.message) from None


def error_of_body(status: int, body: bytes) -> Exception:
    """The error of an answer whose body is XML."""
    code = _ERROR_CODE.search(body)
    return error_of(status, code[1].decode() if code else "")


def error_of(status: int, code: str) -> Exception:
    """The error for a status and an error code; without the server's text, which may hold the request."""
    if code.isdecimal():
        code = ""
    said = f"{status} {code}".strip()
    if status == 404 or code in ("NoSuchKey", "NoSuchBucket"):
        return S3Error(
            "not_found", "no such bucket" if code == "NoSuchBucket" else "no such object"
        )
    if status in (401, 403):
        return S3Error("access_denied", f"the server refuses it ({said})")
    if status in (409, 412):
        return S3Error("precondition", f"the server answered {said}")
    if status >= 500 or status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES:
        return Transient(f"the server answered {said}")
    return S3Error("download_error", f"the server answered {said}")


def connection_error(error: Exception) -> str:
    """A failure of the connection in a few words, without addresses and headers."""
    import urllib3

    match error:
        case urllib3.exceptions.ReadTimeoutError():
            return "the server took too long to send the bytes"
        case urllib3.exceptions.ConnectTimeoutError() | urllib3.exceptions.NewConnectionError():
            return "the server cannot be reached"
        case urllib3.exceptions.IncompleteRead():
            return "the connection ended before all bytes had come"
        case urllib3.exceptions.SSLError():
            return "the server's certificate is not trusted"
        case urllib3.exceptions.ProtocolError() | OSError():
            return "the connection was reset"
        case _:
            return f"the connection failed ({type(error).__name__})"
