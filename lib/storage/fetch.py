"""Reading files: an image at once (`fetch`), a large file by ranges (`open_file`)."""

import os
import stat
from typing import BinaryIO, cast

from lib.common.errors import UserError
from lib.storage.buckets import SCHEMES, open_bucket
from lib.storage.errors import Fetched, FetchError
from lib.storage.http import fetch_data_uri, fetch_http
from lib.storage.object_file import ObjectFile
from lib.storage.options import TIMEOUT_SECONDS, StorageOptions
from lib.storage.uris import is_data_uri, local_path, scheme_of

URL_SCHEMES = ("http", "https")


def local_etag(info: os.stat_result) -> str:
    """An etag of a local file: its time of modification and size."""
    return f"{info.st_mtime_ns:x}-{info.st_size:x}"


def fetch(
    uri: str,
    max_bytes: int,
    start: int = 0,
    size: int | None = None,
    options: StorageOptions | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> Fetched:
    """Read a file, or a range of it.

    Args:
        uri: local path or URI.
        max_bytes: nothing is read if the file or range is larger.
        start: first byte; of files at http:// and https:// all is read.
        size: bytes to read; None reads to the end.
        options: how files are reached.
        timeout: seconds for one attempt over a network.

    Raises:
        FetchError: there is no such file, or it cannot be read, is no regular file, or is too large.
    """
    scheme = scheme_of(uri)
    try:
        if is_data_uri(uri):
            return fetch_data_uri(uri, max_bytes)
        if not scheme:
            return _fetch_local(uri, max_bytes, start, size)
        if scheme in SCHEMES:
            bucket, key = open_bucket(uri, options, timeout=timeout)
            return bucket.read(key, start, size, max_bytes)
        if scheme in URL_SCHEMES:
            http = (options or StorageOptions()).http
            return fetch_http(uri, max_bytes, http, timeout)
    except OSError as error:
        raise FetchError.of(error) from None
    except (UserError, ValueError) as error:  # tables may hold impossible URIs
        raise FetchError("download_error", str(error).splitlines()[0]) from None
    raise FetchError("download_error", f"{scheme}:// is not supported")


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


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking: a pipe would wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def open_file(
    uri: str, options: StorageOptions | None = None, timeout: float = TIMEOUT_SECONDS
) -> BinaryIO:
    """Open a seekable file for reading; unbuffered where each read is a request.

    Args:
        uri: of the file.
        options: how files are reached.
        timeout: seconds for one attempt of a request.

    Raises:
        OSError: it cannot be opened.
    """
    if not scheme_of(uri):
        return local_path(uri).open("rb", buffering=0)
    return cast(BinaryIO, ObjectFile(*open_bucket(uri, options, timeout=timeout)))


def file_version(file: BinaryIO) -> tuple[int, str]:
    """Size and etag of a file from `open_file`."""
    if isinstance(file, ObjectFile):
        return file.size, file.etag
    info = os.fstat(file.fileno())
    return info.st_size, local_etag(info)
