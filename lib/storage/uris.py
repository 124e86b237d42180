"""Addresses of files: local paths, `file:///`, `s3://`, `gs://` and `az://`."""

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from lib.common.errors import UserError

FILE_SCHEME = "file://"
S3_SCHEME = "s3://"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def scheme_of(uri: str) -> str:
    """`s3`, `gs`, … in lower case; empty for a local path or a `file:///` URI."""
    found = _SCHEME.match(uri)
    return "" if found is None or uri.startswith(f"{FILE_SCHEME}/") else found[1].lower()


def local_path(uri: str) -> Path:
    """The file of a local uri: a path, or a `file:///` URI."""
    if uri.startswith(f"{FILE_SCHEME}/"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE_SCHEME))))
    return Path(uri)


def local_uri(path: str) -> str:
    """The path as it is; percent-encoded as `file:///` if it is no UTF-8, which Arrow cannot hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(path))
    return path


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI.

    Raises:
        UserError: it has no bucket, or a user in it.
    """
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    if "@" in bucket or ":" in bucket:
        # The message leaves the URI out: it may contain a password.
        raise UserError("an s3:// URI takes no user or password; use AWS's environment or config")
    if not bucket:
        raise UserError(f"{uri!r} names no bucket; give s3://BUCKET/PREFIX")
    return bucket, key
