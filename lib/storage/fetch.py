"""Reading files: an image at once (`fetch`), a large file by ranges (`open_file`)."""

import os
import stat
from typing import BinaryIO, cast

import pyarrow as pa

from lib.common.errors import UserError
from lib.storage import s3
from lib.storage.errors import Fetched, FetchError, FetchStatus
from lib.storage.filesystem import ARROW_SCHEMES, filesystem
from lib.storage.options import TIMEOUT_SECONDS, S3Options
from lib.storage.s3_errors import S3Error, as_os_errors
from lib.storage.s3_file import RangeFile
from lib.storage.uris import bucket_and_key, local_path, scheme_of


def local_etag(info: os.stat_result) -> str:
    """An etag of a local file: its time of modification and size."""
    return f"{info.st_mtime_ns:x}-{info.st_size:x}"


def fetch(
    uri: str,
    max_bytes: int,
    start: int = 0,
    size: int | None = None,
    options: S3Options | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> Fetched:
    """Read a file, or a range of it.

    Args:
        uri: local path or URI.
        max_bytes: nothing is read if the file or range is larger.
        start: first byte.
        size: bytes to read; None reads to the end.
        options: for S3.
        timeout: seconds for one attempt over a network.

    Raises:
        FetchError: there is no such file, or it cannot be read, is no regular file, or is too large.
    """
    scheme = scheme_of(uri)
    try:
        if not scheme:
            return _fetch_local(uri, max_bytes, start, size)
        if scheme == "s3":
            bucket, key = bucket_and_key(uri)
            return Fetched(*_client(options).read(bucket, key, start, size, max_bytes, timeout))
        if scheme in ARROW_SCHEMES:
            return _fetch_arrow(uri, max_bytes, start, size)
    except S3Error as error:
        status = error.status if error.status != "precondition" else "download_error"
        raise FetchError(cast(FetchStatus, status), error.message) from None
    except (UserError, ValueError) as error:  # tables may hold impossible URIs
        raise FetchError("download_error", str(error).splitlines()[0]) from None
    raise FetchError("download_error", f"{scheme}:// is not supported")


def _client(options: S3Options | None, timeout: float = TIMEOUT_SECONDS) -> s3.S3:
    return s3.client(options or S3Options(), timeout=timeout)


def _fetch_local(uri: str, max_bytes: int, start: int, size: int | None) -> Fetched:
    try:
        with open(local_path(uri), "rb", opener=_open_without_waiting) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise FetchError("download_error", "not a regular file")
            wanted = info.st_size - start if size is None else size
            if wanted > max_bytes:
                raise FetchError("too_large", f"{wanted} bytes; the limit is {max_bytes}")
            file.seek(start)
            return Fetched(file.read(wanted if size is not None else max_bytes), local_etag(info))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FetchError("not_found", "no such file") from error
    except PermissionError as error:
        raise FetchError("access_denied", "no permission to read the file") from error
    except OSError as error:
        raise FetchError("download_error", error.strerror or type(error).__name__) from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking: a pipe would wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _fetch_arrow(uri: str, max_bytes: int, start: int, size: int | None) -> Fetched:
    """Read through pyarrow, which retries."""
    files, path = filesystem(uri)
    try:
        with files.open_input_file(path) as file:
            wanted = file.size() - start if size is None else size
            if wanted > max_bytes:
                raise FetchError("too_large", f"{wanted} bytes; the limit is {max_bytes}")
            return Fetched(file.read_at(wanted, start), "")
    except FileNotFoundError:
        raise FetchError("not_found", "no such object") from None
    except PermissionError:
        raise FetchError("access_denied", "the server refuses it") from None
    except OSError as error:
        raise FetchError("download_error", str(error).splitlines()[0]) from None


def open_file(
    uri: str, options: S3Options | None = None, timeout: float = TIMEOUT_SECONDS
) -> BinaryIO:
    """Open a seekable file for reading; unbuffered where each read is a request.

    Args:
        uri: of the file.
        options: for S3.
        timeout: seconds for one attempt of a request.

    Raises:
        OSError: it cannot be opened.
    """
    scheme = scheme_of(uri)
    if not scheme:
        return local_path(uri).open("rb", buffering=0)
    if scheme == "s3":
        with as_os_errors():
            return cast(
                BinaryIO, RangeFile(_client(options, timeout), *bucket_and_key(uri), timeout)
            )
    files, path = filesystem(uri)
    return cast(BinaryIO, files.open_input_file(path))


def file_version(file: BinaryIO) -> tuple[int, str]:
    """Size and etag of a file from `open_file`; the etag is empty where the storage has none."""
    if isinstance(file, RangeFile):
        return file.size, file.etag
    if isinstance(file, pa.NativeFile):
        return file.size(), ""
    info = os.fstat(file.fileno())
    return info.st_size, local_etag(info)
