"""File systems of pyarrow and Ray for local paths, `s3://`, `gs://` and `az://`."""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs

from lib.common.errors import UserError
from lib.storage.bucket import Bucket, Prefix
from lib.storage.buckets import SCHEMES, open_bucket
from lib.storage.object_file import ObjectFile
from lib.storage.options import StorageOptions
from lib.storage.uris import bucket_and_key, local_path, scheme_of

LARGEST_READ = 64 << 20


def check_scheme(uri: str, what: str, more: Sequence[str] = ()) -> str:
    """The scheme of a path or URI of the user.

    Args:
        uri: of the user.
        what: it is, for the message.
        more: schemes that are supported here, besides those of buckets.

    Raises:
        UserError: it is not supported.
    """
    scheme = scheme_of(uri)
    if scheme in SCHEMES:
        bucket_and_key(uri)
    elif scheme and scheme not in more:
        # The URI may contain a password.
        shown = f"{scheme}://…" if {"@", "?"} & {*uri} else uri
        known = ", ".join(f"{name}://" for name in (*SCHEMES, *more))
        raise UserError(
            f"{what} {shown!r}: {scheme}:// is not supported here; give a local path or {known}"
        )
    return scheme


def filesystem(uri: str, options: StorageOptions | None = None) -> tuple[fs.FileSystem, str]:
    """The file system of a URI for pyarrow and Ray, and the path in it."""
    scheme = scheme_of(uri)
    if not scheme:
        return fs.LocalFileSystem(), str(local_path(uri))
    name, key = bucket_and_key(uri)
    files = BucketFiles(scheme, options or StorageOptions())
    return fs.PyFileSystem(files), f"{name}/{key}".rstrip("/")


class BucketFiles(fs.FileSystemHandler):
    """Buckets as a file system of pyarrow and Ray, with the client that reads the images.

    pyarrow's own has other rules for credentials and retries, and creates empty objects for folders,
    which some servers treat as files. A file is written when it is closed, so it appears whole or not at
    all, and is in memory until then: results are written in files of up to about 128 MB.
    """

    def __init__(self, scheme: str, options: StorageOptions) -> None:
        self._scheme, self._options = scheme, options

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketFiles) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((self._scheme, self._options))

    def _at(self, path: str) -> tuple[Bucket, str]:
        return open_bucket(f"{self._scheme}://{path}", self._options)

    def get_type_name(self) -> str:
        """The scheme."""
        return self._scheme

    def normalize_path(self, path: str) -> str:
        """The path, unchanged."""
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[fs.FileInfo]:
        """Files, and prefixes of files as folders."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        bucket, key = self._at(path)
        if key:
            try:
                found = bucket.head(key)
            except (FileNotFoundError, PermissionError):
                pass
            else:
                return fs.FileInfo(path, fs.FileType.File, size=found.size, mtime=found.modified)
        page = next(bucket.pages(f"{key.rstrip('/')}/" if key else ""), [])
        return fs.FileInfo(path, fs.FileType.Directory if page else fs.FileType.NotFound)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """List a folder."""
        bucket, key = self._at(selector.base_dir)
        prefix = f"{key.rstrip('/')}/" if key else ""
        name = selector.base_dir.partition("/")[0]
        found = []
        for page in bucket.pages(prefix, folders=not selector.recursive):
            for item in page:
                path = f"{name}/{item.key}".rstrip("/")
                if isinstance(item, Prefix):
                    found.append(fs.FileInfo(path, fs.FileType.Directory))
                elif item.key != prefix:
                    found.append(
                        fs.FileInfo(path, fs.FileType.File, size=item.size, mtime=item.modified)
                    )
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        return found

    def create_dir(self, path: str, recursive: bool) -> None:
        """Buckets have no folders."""

    def delete_dir(self, path: str) -> None:
        """Delete all below a prefix."""
        self.delete_dir_contents(path, True)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all below a prefix."""
        bucket, key = self._at(path)
        keys = [item.key for page in bucket.pages(f"{key.rstrip('/')}/") for item in page]
        bucket.delete(keys)

    def delete_root_dir_contents(self) -> None:
        """Not supported."""
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        """Delete an object."""
        bucket, key = self._at(path)
        bucket.delete([key])

    def move(self, src: str, dest: str) -> None:
        """Copy, then delete: after a kill in between, both objects exist."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy within a bucket, on the server."""
        bucket, source = self._at(src)
        bucket.copy(source, dest.partition("/")[2])

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Read an object from its beginning, in several requests if it is large."""
        file = ObjectFile(*self._at(path))
        buffer = max(1, min(file.size, LARGEST_READ))
        return pa.PythonFile(io.BufferedReader(file, buffer), mode="r")

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Read parts of an object."""
        return pa.PythonFile(ObjectFile(*self._at(path)), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Write an object."""
        return pa.PythonFile(_Upload(*self._at(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Not supported: objects cannot grow."""
        raise NotImplementedError


class _Upload(io.BytesIO):
    """A file that becomes an object when it is closed."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        super().__init__()
        self._bucket, self._key = bucket, key

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._bucket.write(self._key, data)
