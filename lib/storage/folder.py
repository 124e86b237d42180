"""Folders for results, local or in object storage, whose files appear whole or not at all."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from lib.common.errors import UserError, reason_of
from lib.storage.buckets import open_bucket
from lib.storage.fetch import open_file
from lib.storage.filesystem import check_scheme, filesystem
from lib.storage.options import StorageOptions
from lib.storage.uris import local_path, local_uri, scheme_of


@contextmanager
def failures_in_one_line(remedy: str) -> Iterator[None]:
    """Turn errors of the storage into one line.

    Args:
        remedy: for the message.

    Raises:
        UserError: in place of an error of the storage.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        name = f" ({error.filename})" if getattr(error, "filename", None) else ""
        raise UserError(f"the run stopped: {reason_of(error)}{name}; {remedy}") from error


@dataclass(frozen=True)
class Folder:
    """A folder for results. Files appear in it whole or not at all.

    Attributes:
        uri: local path or URI, without a slash at its end.
        options: how files are reached.
    """

    uri: str
    options: StorageOptions = field(default_factory=StorageOptions)

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
        """Create it on a local disk; object storage has no folders."""
        if self.is_local:
            self._local.mkdir(parents=True, exist_ok=True)

    def files(self, suffix: str = ".parquet") -> list[str]:
        """Names of its own files, sorted; none if it does not exist."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        names = (info.base_name for info in found if info.type == fs.FileType.File)
        return sorted(name for name in names if name.endswith(suffix))

    def sizes(self) -> dict[str, int]:
        """Bytes of its own Parquet files, by name."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return {i.base_name: i.size for i in found if i.base_name.endswith(".parquet")}

    def holds(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""
        if self.is_local:
            return (self._local / name).exists()
        info = self.filesystem.get_file_info(f"{self.path}/{name}")
        return info.type != fs.FileType.NotFound

    def read(self, name: str) -> bytes:
        """The bytes of a file, as they are stored.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read.
        """
        # PyArrow would decompress what is called .gz.
        with self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as file:
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
        else:
            bucket, key = open_bucket(f"{self.uri}/{name}", self.options)
            bucket.write(key, data)

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
        """Open a file for writing that appears only if the `with` block ends without an error."""
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
        """Copy all files of a local folder, replacing existing ones.

        Args:
            source: the folder, copied recursively.
            last: name of the file that is written last and so marks a complete copy.
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
            self.filesystem.delete_file(f"{self.path}/{name}")

    def delete_all(self) -> None:
        """Delete it with its contents."""
        self.filesystem.delete_dir_contents(self.path, missing_dir_ok=True)
        if self.is_local and self._local.exists():
            self._local.rmdir()

    @property
    def _local(self) -> Path:
        return Path(self.uri)


def folder(where: "str | Path | Folder", options: StorageOptions | None = None) -> Folder:
    """The folder of a path or URI.

    Args:
        where: the folder.
        options: how files are reached; None: those of this machine's environment.

    Raises:
        UserError: its scheme is not supported, or AWS's configuration is impossible.
    """
    if isinstance(where, Folder):
        return where
    uri = str(where)
    if scheme := check_scheme(uri, "folder"):
        if options is None and scheme == "s3":
            options = StorageOptions().resolved()
        return Folder(uri.rstrip("/"), options or StorageOptions())
    path = os.path.abspath(local_path(uri))  # noqa: PTH100
    if local_uri(path) != path:
        raise UserError(f"the name of the folder {path!r} is not UTF-8; give another one")
    return Folder(path, options or StorageOptions())
