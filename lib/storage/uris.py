"""Addresses of files: local paths, `file:///`, `s3://`, `gs://`, `az://`, `http(s)://`, `data:`."""

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from lib.common.errors import UserError

FILE_SCHEME = "file://"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ACCESS_POINT = re.compile(
    r"(arn:[a-z-]+:s3[a-z-]*:[a-z0-9-]*:\d*:accesspoint[:/][a-z0-9-]+)(?:/(.*)|)", re.DOTALL
)


def scheme_of(uri: str) -> str:
    """`s3`, `gs`, … in lower case; empty for a local path or a `file:///` URI."""
    found = _SCHEME.match(uri)
    return "" if found is None or _is_file_uri(uri) else found[1].lower()


def with_lower_scheme(uri: str) -> str:
    """`S3://bucket/X` → `s3://bucket/X`; a path as it is."""
    found = _SCHEME.match(uri)
    return uri if found is None else found[1].lower() + uri[found.end(1) :]


def local_path(uri: str) -> Path:
    """The file of a local uri: a path, or a `file:///` URI."""
    if _is_file_uri(uri):
        return Path(os.fsdecode(unquote_to_bytes(uri[len(FILE_SCHEME) :])))
    return Path(uri)


def _is_file_uri(uri: str) -> bool:
    return uri[: len(FILE_SCHEME) + 1].lower() == f"{FILE_SCHEME}/"


def is_data_uri(name: str) -> bool:
    """Whether the name is the image itself: `data:image/jpeg;base64,...`."""
    return name[:5].lower() == "data:"


def local_uri(path: str) -> str:
    """The path as it is; percent-encoded as `file:///` if it is no UTF-8, which Arrow cannot hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(path))
    return path


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://`, `gs://` or `az://` URI; the ARN of an access point is a bucket.

    Raises:
        UserError: it has no bucket, or a user in it.
    """
    scheme = scheme_of(uri)
    rest = uri[len(scheme) + len("://") :]
    if access_point := _ACCESS_POINT.match(rest):
        return access_point[1], access_point[2] or ""
    bucket, _, key = rest.partition("/")
    if "@" in bucket or ":" in bucket:
        # The message leaves the URI out: it may contain a password.
        raise UserError(
            f"{scheme}:// takes a bucket without user or password; use the provider's environment or "
            "config files"
        )
    if not bucket:
        raise UserError(f"{uri!r} names no bucket; give {scheme}://BUCKET/PREFIX")
    return bucket, key
