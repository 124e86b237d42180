"""File systems of pyarrow and Ray for local paths, `s3://`, `gs://` and `az://`."""

import io
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs

from lib.common.errors import UserError
from lib.storage import s3
from lib.storage.options import S3Options
from lib.storage.s3_errors import S3Error, as_os_errors
from lib.storage.s3_file import RangeFile
from lib.storage.uris import bucket_and_key, local_path, scheme_of

LARGEST_READ = 64 << 20
ARROW_SCHEMES = {"gs": "GcsFileSystem", "az": "AzureFileSystem", "abfs": "AzureFileSystem"}
"""URI scheme → the file system of pyarrow that reads it; not every build of pyarrow has them."""


def check_scheme(uri: str, what: str) -> str:
    """The scheme of a path or URI of the user.

    Raises:
        UserError: it is not supported, by this project or by this build of pyarrow.
    """
    scheme = scheme_of(uri)
    if scheme in ARROW_SCHEMES:
        _arrow_class(scheme)
    elif scheme == "s3":
        bucket_and_key(uri)
    elif scheme:
        # The URI may contain a password.
        shown = f"{scheme}://…" if {"@", "?"} & {*uri} else uri
        raise UserError(
            f"{what} {shown!r}: {scheme}:// is not supported; give a local path or s3://, gs:// or az://"
        )
    return scheme


def filesystem(uri: str, options: S3Options | None = None) -> tuple[fs.FileSystem, str]:
    """The file system of a URI for pyarrow and Ray, and the path in it."""
    scheme = scheme_of(uri)
    if not scheme:
        return fs.LocalFileSystem(), str(local_path(uri))
    if scheme == "s3":
        bucket, key = bucket_and_key(uri)
        return _s3_filesystem(options or S3Options()), f"{bucket}/{key}".rstrip("/")
    return _arrow_filesystem(uri)


def _arrow_class(scheme: str) -> Any:
    name = ARROW_SCHEMES[scheme]
    try:
        return getattr(fs, name)
    except (AttributeError, ImportError):
        raise UserError(
            f"{scheme}:// needs pyarrow's {name}, which this build of pyarrow {pa.__version__} does "
            "not have; use a build that has it, or give a local path or s3://"
        ) from None


@lru_cache(maxsize=64)
def _arrow_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    scheme = scheme_of(uri)
    made = _arrow_class(scheme)
    path = uri.split("://", 1)[1]
    if scheme == "gs":
        return made(), path
    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise UserError(f"{scheme}:// needs the account's name in AZURE_STORAGE_ACCOUNT")
    return made(account_name=account), path


@lru_cache(maxsize=8)
def _s3_filesystem(options: S3Options) -> fs.FileSystem:
    return fs.PyFileSystem(S3Files(options))


class S3Files(fs.FileSystemHandler):
    """S3 as a file system of pyarrow and Ray, with the client that reads the images.

    pyarrow's own has other rules for credentials and retries, and creates empty objects for folders,
    which some servers treat as files. A file is one PUT, so it appears whole or not at all, and is in
    memory until then: results are written in files of up to about 128 MB.
    """

    def __init__(self, options: S3Options) -> None:
        self._options = options

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Files) and other._options == self._options

    def __hash__(self) -> int:
        return hash(self._options)

    def __getstate__(self) -> S3Options:
        return self._options

    def __setstate__(self, options: S3Options) -> None:
        self._options = options

    @property
    def _client(self) -> s3.S3:
        return s3.client(self._options)

    def get_type_name(self) -> str:
        """`s3`."""
        return "s3"

    def normalize_path(self, path: str) -> str:
        """The path, unchanged."""
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[fs.FileInfo]:
        """Files, and prefixes of files as folders."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        bucket, key = _parts(path)
        with as_os_errors():
            try:
                size, _ = self._client.size(bucket, key)
                return fs.FileInfo(path, fs.FileType.File, size=size)
            except S3Error as error:
                if error.status not in ("not_found", "access_denied"):
                    raise
            page = next(self._client.pages(bucket, f"{key.rstrip('/')}/"))
        return fs.FileInfo(path, fs.FileType.Directory if page else fs.FileType.NotFound)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """List a folder."""
        bucket, key = _parts(selector.base_dir)
        prefix = f"{key.rstrip('/')}/" if key else ""
        found = []
        with as_os_errors():
            for page in self._client.pages(bucket, prefix, folders=not selector.recursive):
                for item in page:
                    path = f"{bucket}/{item.key}".rstrip("/")
                    if isinstance(item, s3.Prefix):
                        found.append(fs.FileInfo(path, fs.FileType.Directory))
                    elif item.key != prefix:
                        found.append(
                            fs.FileInfo(path, fs.FileType.File, size=item.size, mtime=item.modified)
                        )
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        return found

    def create_dir(self, path: str, recursive: bool) -> None:
        """S3 has no folders."""

    def delete_dir(self, path: str) -> None:
        """Delete all below a prefix."""
        self.delete_dir_contents(path, True)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all below a prefix."""
        selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
        bucket, _ = _parts(path)
        keys = [_parts(info.path)[1] for info in self.get_file_info_selector(selector)]
        with as_os_errors():
            self._client.delete_all(bucket, keys)

    def delete_root_dir_contents(self) -> None:
        """Not supported."""
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        """Delete an object."""
        with as_os_errors():
            self._client.delete(*_parts(path))

    def move(self, src: str, dest: str) -> None:
        """Copy, then delete: after a kill in between, both objects exist."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy within a bucket, on the server."""
        bucket, source = _parts(src)
        with as_os_errors():
            self._client.copy(bucket, source, _parts(dest)[1])

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Read an object from its beginning, in several requests if it is large."""
        with as_os_errors():
            file = RangeFile(self._client, *_parts(path))
        buffer = max(1, min(file.size, LARGEST_READ))
        return pa.PythonFile(io.BufferedReader(file, buffer), mode="r")

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Read parts of an object."""
        with as_os_errors():
            return pa.PythonFile(RangeFile(self._client, *_parts(path)), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Write an object."""
        return pa.PythonFile(_Upload(self._client, *_parts(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Not supported: objects cannot grow."""
        raise NotImplementedError


class _Upload(io.BytesIO):
    """A file that becomes an object when it is closed."""

    def __init__(self, client: s3.S3, bucket: str, key: str) -> None:
        super().__init__()
        self._target = client, bucket, key

    def close(self) -> None:
        if not self.closed:
            client, bucket, key = self._target
            data = self.getvalue()
            super().close()
            with as_os_errors():
                client.write(bucket, key, data)


def _parts(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key
