"""Files and folders wherever they are: local paths, `s3://`, and `gs://`, `az://` through pyarrow.

Everything that reads an archive or writes a result comes through here. Reading many images is `fetch`;
reading a large file bit by bit is `open_file`; what a run leaves behind is a `Folder`.
"""

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from lib.common.errors import UserError, reason_of
from lib.storage import s3
from lib.storage.s3 import S3Error, S3Options, as_os_errors

FetchStatus = Literal["not_found", "access_denied", "download_error", "too_large"]
Result = TypeVar("Result")

LARGEST_READ = 64 << 20
FILE_SCHEME = "file://"
ARROW_SCHEMES = {"gs": "GcsFileSystem", "az": "AzureFileSystem", "abfs": "AzureFileSystem"}
"""URI scheme → the file system of pyarrow that reads it; not every build of pyarrow has them."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class FetchError(Exception):
    """Bytes that could not be had; the message is one line.

    Attributes:
        status: `not_found`, `access_denied`, `too_large` or, for all else, `download_error`.
    """

    def __init__(self, status: FetchStatus, message: str) -> None:
        super().__init__(message)
        self.status: FetchStatus = status


class Fetched(NamedTuple):
    """Bytes, and what changes when they do."""

    data: bytes
    etag: str


def scheme_of(uri: str) -> str:
    """`s3`, `gs`, … in lower case; empty for a local path or a `file:///` URI."""
    found = _SCHEME.match(uri)
    return "" if found is None or uri.startswith(f"{FILE_SCHEME}/") else found[1].lower()


def check_scheme(uri: str, what: str) -> str:
    """The scheme of what the user gave.

    Raises:
        UserError: it is not supported, by this project or by this build of pyarrow.
    """
    scheme = scheme_of(uri)
    if scheme in ARROW_SCHEMES:
        _arrow_class(scheme)
    elif scheme == "s3":
        s3.split(uri)
    elif scheme:
        # There may be a password in it.
        shown = f"{scheme}://…" if {"@", "?"} & {*uri} else uri
        raise UserError(
            f"{what} {shown!r}: {scheme}:// is not supported; give a local path or s3://, gs:// or az://"
        )
    return scheme


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


def local_etag(info: os.stat_result) -> str:
    """What changes when a local file does."""
    return f"{info.st_mtime_ns:x}-{info.st_size:x}"


@contextmanager
def failures_in_one_line(remedy: str) -> Iterator[None]:
    """Turn what storage says into one line.

    Args:
        remedy: what the user can do then.

    Raises:
        UserError: in place of an error of the storage.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        name = f" ({error.filename})" if getattr(error, "filename", None) else ""
        raise UserError(f"the run stopped: {reason_of(error)}{name}; {remedy}") from error


# --- Reading ---------------------------------------------------------------------------------------


def fetch(
    uri: str,
    max_bytes: int,
    start: int = 0,
    size: int | None = None,
    options: S3Options | None = None,
    timeout: float = s3.TIMEOUT_SECONDS,
) -> Fetched:
    """Read a file, or a range of it.

    Args:
        uri: local path or URI.
        max_bytes: if the file or range is larger, nothing of it is read.
        start: first byte.
        size: bytes to read; None reads to the end.
        options: for S3.
        timeout: seconds for one attempt, where there is a network in between.

    Raises:
        FetchError: there is no such file, or it cannot be read, is no regular file, or is too large.
    """
    scheme = scheme_of(uri)
    try:
        if not scheme:
            return _fetch_local(uri, max_bytes, start, size)
        if scheme == "s3":
            bucket, key = s3.split(uri)
            return Fetched(*_client(options).read(bucket, key, start, size, max_bytes, timeout))
        if scheme in ARROW_SCHEMES:
            return _fetch_arrow(uri, max_bytes, start, size)
    except S3Error as error:
        status = error.status if error.status != "precondition" else "download_error"
        raise FetchError(cast(FetchStatus, status), error.message) from None
    except (UserError, ValueError) as error:  # tables may name what no storage can have
        raise FetchError("download_error", str(error).splitlines()[0]) from None
    raise FetchError("download_error", f"{scheme}:// is not supported")


def _client(options: S3Options | None, timeout: float = s3.TIMEOUT_SECONDS) -> s3.S3:
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
    """Open a file; a pipe would otherwise wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _fetch_arrow(uri: str, max_bytes: int, start: int, size: int | None) -> Fetched:
    """Read through pyarrow, which tries again by itself."""
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
    uri: str, options: S3Options | None = None, timeout: float = s3.TIMEOUT_SECONDS
) -> BinaryIO:
    """Open a file for reading here and there: seekable, unbuffered where each read is a request.

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
            return cast(BinaryIO, s3.RangeFile(_client(options, timeout), *s3.split(uri), timeout))
    files, path = filesystem(uri)
    return cast(BinaryIO, files.open_input_file(path))


def file_version(file: BinaryIO) -> tuple[int, str]:
    """Size and etag of a file from `open_file`; the etag is empty where the storage tells none."""
    if isinstance(file, s3.RangeFile):
        return file.size, file.etag
    if isinstance(file, pa.NativeFile):
        return file.size(), ""
    info = os.fstat(file.fileno())
    return info.st_size, local_etag(info)


# --- What a run leaves behind ----------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A folder for results. Files appear in it whole or not at all.

    Attributes:
        uri: local path or URI, without a slash at its end.
        options: for S3.
    """

    uri: str
    options: S3Options = field(default_factory=S3Options)

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.uri}/{name}", self.options)

    @property
    def parent(self) -> "Folder":
        """The folder that it is in."""
        return Folder(self.uri.rpartition("/")[0], self.options)

    @property
    def is_local(self) -> bool:
        """Whether it is in the file system of this machine."""
        return not scheme_of(self.uri)

    @property
    def filesystem(self) -> fs.FileSystem:
        """For pyarrow and Ray; goes with `path`."""
        return filesystem(self.uri, self.options)[0]

    @property
    def path(self) -> str:
        """The folder in `filesystem`."""
        return filesystem(self.uri, self.options)[1]

    def make(self) -> None:
        """Make it where folders are made; object storage has none."""
        if self.is_local:
            self._local.mkdir(parents=True, exist_ok=True)

    def files(self, suffix: str = ".parquet") -> list[str]:
        """Names of the files right in it, sorted; none if it does not exist."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        names = (info.base_name for info in found if info.type == fs.FileType.File)
        return sorted(name for name in names if name.endswith(suffix))

    def sizes(self) -> dict[str, int]:
        """Bytes of the Parquet files right in it, by name."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return {i.base_name: i.size for i in found if i.base_name.endswith(".parquet")}

    def holds(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""
        if self.is_local:
            return (self._local / name).exists()
        info = self.filesystem.get_file_info(f"{self.path}/{name}")
        return info.type != fs.FileType.NotFound

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace it.

        Raises:
            OSError: it cannot be written.
        """
        if self.is_local:
            self.make()
            unfinished = self._local / f".{name}.tmp"
            unfinished.write_bytes(data)
            unfinished.replace(self._local / name)
        elif scheme_of(self.uri) == "s3":
            bucket, key = s3.split(f"{self.uri}/{name}")
            with as_os_errors():
                _client(self.options).write(bucket, key, data)
        else:
            with self.filesystem.open_output_stream(f"{self.path}/{name}") as file:
                file.write(data)

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a Parquet file.

        Raises:
            OSError, pa.ArrowInvalid: it cannot be read.
        """
        names = None if columns is None else list(columns)
        if self.is_local:
            return pq.ParquetFile(self._local / name).read(names)
        with open_file(f"{self.uri}/{name}", self.options) as file:
            return pq.ParquetFile(file, pre_buffer=True).read(names)

    def write_table(self, name: str, table: pa.Table, group_rows: int | None = None) -> None:
        """Write a Parquet file, or replace it."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=group_rows)
        self.write(name, buffer.getvalue())

    @contextmanager
    def new_file(self, name: str) -> Iterator[Any]:
        """Open a file for writing that appears when the `with` block ends well, and not otherwise."""
        if self.is_local:
            self.make()
            unfinished = self._local / f".{name}.tmp"
            with unfinished.open("wb") as file:
                yield file
            unfinished.replace(self._local / name)
        else:
            buffer = io.BytesIO()
            yield buffer
            self.write(name, buffer.getvalue())

    def upload(self, source: Path, last: str = "") -> None:
        """Copy all files of a local folder, replacing those that are there.

        Args:
            source: the folder; with the folders in it, of whatever depth.
            last: name of the file that comes last: with it all others are there.
        """
        files = [file for file in source.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: (file.name == last, file)):
            *folders, name = file.relative_to(source).parts
            target = self
            for part in folders:
                target /= part
            target.write(name, file.read_bytes())

    def move(self, name: str, target: "Folder") -> None:
        """Move a file into another folder of the same storage."""
        target.make()
        self.filesystem.move(f"{self.path}/{name}", f"{target.path}/{name}")

    def delete(self, name: str) -> None:
        """Delete a file; none is no error."""
        if self.is_local:
            (self._local / name).unlink(missing_ok=True)
        else:
            try:
                self.filesystem.delete_file(f"{self.path}/{name}")
            except FileNotFoundError:
                return

    def delete_all(self) -> None:
        """Delete it with all in it."""
        self.filesystem.delete_dir_contents(self.path, missing_dir_ok=True)
        if self.is_local and self._local.exists():
            self._local.rmdir()

    @property
    def _local(self) -> Path:
        return Path(self.uri)


def folder(where: "str | Path | Folder", options: S3Options | None = None) -> Folder:
    """A folder that was given as a path or URI.

    Args:
        where: the folder.
        options: for S3; None takes what this machine's environment says.

    Raises:
        UserError: its kind is not supported, or AWS's configuration is impossible.
    """
    if isinstance(where, Folder):
        return where
    uri = str(where)
    if scheme := check_scheme(uri, "folder"):
        if options is None and scheme == "s3":
            options = S3Options().resolved()
        return Folder(uri.rstrip("/"), options or S3Options())
    path = os.path.abspath(local_path(uri))  # noqa: PTH100
    if local_uri(path) != path:
        raise UserError(f"the name of the folder {path!r} is not UTF-8; give another one")
    return Folder(path, options or S3Options())


def filesystem(uri: str, options: S3Options | None = None) -> tuple[fs.FileSystem, str]:
    """The file system of a URI for pyarrow and Ray, and the path in it."""
    scheme = scheme_of(uri)
    if not scheme:
        return fs.LocalFileSystem(), str(local_path(uri))
    if scheme == "s3":
        bucket, key = s3.split(uri)
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
    """S3 as pyarrow and Ray want it, on the client that reads the images.

    pyarrow's own has other rules for credentials and retries, and makes empty objects for folders, which
    some servers then take for files. A file is one PUT, hence whole or not there, and is in memory until
    then: results are written in files of up to about 128 MB.
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
        """As in pyarrow."""
        return "s3"

    def normalize_path(self, path: str) -> str:
        """Nothing to do."""
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
        """Folders are there by themselves."""

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
        """Never."""
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        """Delete an object."""
        with as_os_errors():
            self._client.delete(*_parts(path))

    def move(self, src: str, dest: str) -> None:
        """Copy, then delete: killed in between, both are there."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy within a bucket, on the server."""
        bucket, source = _parts(src)
        with as_os_errors():
            self._client.copy(bucket, source, _parts(dest)[1])

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Read an object from its beginning; checkpoints are larger than one request should be."""
        with as_os_errors():
            file = s3.RangeFile(self._client, *_parts(path))
        buffer = max(1, min(file.size, LARGEST_READ))
        return pa.PythonFile(io.BufferedReader(file, buffer), mode="r")

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Read parts of an object."""
        with as_os_errors():
            return pa.PythonFile(s3.RangeFile(self._client, *_parts(path)), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Write an object."""
        return pa.PythonFile(_Upload(self._client, *_parts(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Objects cannot grow."""
        raise NotImplementedError


class _Upload(io.BytesIO):
    """What is written becomes an object when it is closed."""

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
