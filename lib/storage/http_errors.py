"""Failures of HTTP as short messages without addresses, query strings, headers or secrets."""

import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead
from typing import ClassVar

import urllib3

from lib.storage.errors import FetchError
from lib.storage.retry import Transient

ATTEMPTS = 5
"""Fewer than for a bucket: dead hosts are common in lists of URLs."""
LONGEST_RETRY_AFTER_SECONDS = 60.0
NOT_TRUSTED = "the server's certificate is not trusted; give its CA in SSL_CERT_FILE"
_TRANSIENT_STATUSES = frozenset({408, 429})
_CERTIFICATE_ERRORS = {
    10: "the server's certificate has expired",
    62: "the server's certificate is for another host",
    64: "the server's certificate is for another address",
}
"""OpenSSL's verify codes whose remedy is not another CA (X509_V_ERR_* in its x509_vfy.h)."""


class Failure(Transient):
    """A failure that may pass; the message is one line for users.

    Attributes:
        most: attempts that may fail in this way.
        pause: seconds that the server asks to wait; 0 if it does not ask.
    """

    most: ClassVar[int] = ATTEMPTS

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class Refused(Failure):
    """The server cannot be connected to."""

    most = 3


class TimedOut(Failure):
    """An attempt took too long."""

    most = 2


def status_error(status: int, headers: Mapping[str, str]) -> Exception:
    """The error of an answer that is not the file.

    Args:
        status: of the answer.
        headers: of the answer; `Retry-After` counts where the status is transient.

    Returns:
        A `Failure` if another attempt may succeed, else a `FetchError`.
    """
    said = f"the server answered {status}"
    if status in (404, 410):
        return FetchError("not_found", said)
    if status in (401, 403, 451):
        return FetchError("access_denied", f"the server refuses it ({status})")
    if status < 500 and status not in _TRANSIENT_STATUSES:
        return FetchError("download_error", said)
    pause = retry_after_seconds(headers.get("Retry-After", ""))
    if pause > LONGEST_RETRY_AFTER_SECONDS:
        return FetchError("download_error", f"{said} and asks to wait {pause:.0f} s; try later")
    return Failure(said, pause)


def retry_after_seconds(value: str) -> float:
    """Seconds that a `Retry-After` header asks to wait: a number or a date; 0 if it is neither."""
    value = value.strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def connection_error(error: Exception) -> Exception:
    """The `Failure` or `FetchError` for an exception of urllib3."""
    match error:
        case urllib3.exceptions.TimeoutError():
            return TimedOut("the server took too long")
        case urllib3.exceptions.ProxyError():
            return Refused("the proxy cannot connect to the server")
        case urllib3.exceptions.SSLError():
            return _tls_error(error.args[0])
        case urllib3.exceptions.DecodeError():
            return FetchError("download_error", "the answer is not in its Content-Encoding")
        case urllib3.exceptions.ProtocolError(args=(_, IncompleteRead())):
            return Failure("the connection ended before all bytes had come")
        case urllib3.exceptions.ProtocolError():
            return Failure("the connection was reset")
        case _:
            return Failure(f"the connection failed ({type(error).__name__})")


def _tls_error(cause: object) -> Exception:
    if isinstance(cause, ssl.SSLCertVerificationError):
        message = _CERTIFICATE_ERRORS.get(cause.verify_code, NOT_TRUSTED)
        return FetchError("download_error", message)
    return Refused("TLS with the server fails")
