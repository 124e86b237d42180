"""A bucket of object storage (S3, Google Cloud Storage, Azure): obstore, with this project's retries.

obstore reads small objects in far less CPU time than boto3, and without holding Python's lock.
`lib/storage/s3.py` says what it cannot do with S3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from lib.storage.answers import error_of
from lib.storage.errors import Fetched, storage_error
from lib.storage.retry import Transient, pause_seconds, retrying

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion
    from obstore.store import ClientConfig, ObjectStore

CONNECT_SECONDS = 5.0
PART_BYTES = 16 << 20
"""Larger objects are written in parts, several at a time."""
PAGE = 1000
DELETES_AT_A_TIME = 10

Result = TypeVar("Result")


class Object(NamedTuple):
    """A listed object; `modified` in seconds since 1970."""

    key: str
    size: int
    etag: str
    modified: float = 0.0


class Prefix(NamedTuple):
    """A common prefix of keys that are not listed individually."""

    key: str


class Versioned(NamedTuple):
    """A small object that several processes write: its bytes, version, and time of the last write."""

    data: bytes
    version: UpdateVersion
    modified: float


def client_config(timeout: float) -> ClientConfig:
    """How obstore connects.

    Args:
        timeout: seconds to wait for an answer, and for each further part of it; ten times that for all.
    """
    return {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=min(CONNECT_SECONDS, timeout)),
        "read_timeout": timedelta(seconds=timeout),
        "timeout": timedelta(seconds=10 * timeout),
    }


class Bucket:
    """A bucket or container; threads may share it. Its errors are `OSError`s of one line."""

    def __init__(self, store: ObjectStore, attempts: int, timeout: float) -> None:
        """Take a store.

        Args:
            store: of obstore, made with `client_config(timeout)` and without retries.
            attempts: of each request, at most.
            timeout: seconds that an attempt may take.
        """
        self._store, self._attempts, self._timeout = store, attempts, timeout

    def read(
        self, key: str, start: int = 0, size: int | None = None, max_bytes: int | None = None
    ) -> Fetched:
        """Read an object or a range of it in one request.

        Args:
            key: of the object.
            start: first byte.
            size: bytes to read; None reads to the end.
            max_bytes: nothing is read if the object or range is larger.

        Raises:
            OSError: it cannot be read.
        """
        if size == 0:
            return Fetched(b"", "")  # HTTP has no empty range
        return self._retried(lambda: self._read(key, start, size, max_bytes))

    def _read(self, key: str, start: int, size: int | None, max_bytes: int | None) -> Fetched:
        part: Any = None
        if size is not None:
            part = {"range": (start, start + size)}
        elif start:
            part = {"range": {"offset": start}}
        answer = obstore.get(self._store, key, options=part)
        begin, end = answer.range
        check_size(end - begin, max_bytes)
        return Fetched(answer.bytes().to_bytes(), _etag(answer.meta))

    def versioned(self, key: str) -> Versioned | None:
        """A small object with its version; None: there is none.

        Raises:
            OSError: it cannot be read.
        """

        def look() -> Versioned:
            answer = obstore.get(self._store, key)
            meta = answer.meta
            return Versioned(
                answer.bytes().to_bytes(), _version(meta), meta["last_modified"].timestamp()
            )

        try:
            return self._retried(look)
        except FileNotFoundError:
            return None

    def head(self, key: str) -> Object:
        """What is known of an object.

        Raises:
            OSError: there is none, or the server refuses.
        """
        return self._retried(lambda: _object(obstore.head(self._store, key)))

    def pages(
        self, prefix: str, after: str = "", folders: bool = False
    ) -> Iterator[list[Object | Prefix]]:
        """List a prefix in the order of its keys, some at a time.

        Args:
            prefix: that the keys begin with; a folder.
            after: list only keys behind this one.
            folders: list common prefixes in place of the keys of folders below the prefix.

        Raises:
            OSError: it cannot be listed.
        """
        if folders:
            yield self._retried(lambda: self._level(prefix))
            return
        failures = 0
        while True:
            try:
                found = obstore.list(
                    self._store, prefix or None, offset=after or None, chunk_size=PAGE
                )
                for page in found:
                    failures, after = 0, page[-1]["path"]
                    yield [_object(item) for item in page]
                return
            except (BaseError, OSError) as error:
                failure = error_of(error)
            if not isinstance(failure, Transient):
                raise failure
            failures += 1
            if failures == self._attempts:
                raise failure.as_os_error()
            time.sleep(pause_seconds(failures))

    def _level(self, prefix: str) -> list[Object | Prefix]:
        found = obstore.list_with_delimiter(self._store, prefix or None)
        items: list[Object | Prefix] = [_object(item) for item in found["objects"]]
        items += [Prefix(f"{key}/") for key in found["common_prefixes"]]
        return sorted(items, key=lambda item: item.key.encode())

    def write(
        self,
        key: str,
        data: bytes,
        replacing: UpdateVersion | None = None,
        new: bool = False,
    ) -> UpdateVersion | None:
        """Write an object, whole or not at all.

        Args:
            key: of the object.
            data: its bytes.
            replacing: write only if the object still has this version.
            new: write only if there is no such object.

        Returns:
            Its version; None if the condition does not hold.

        Raises:
            ConditionsError: the server does not know the condition.
            OSError: it cannot be written.
        """
        conditional = new or replacing is not None
        mode: Any = "create" if new else replacing or "overwrite"
        multipart = None if not conditional else False
        try:
            return _version(
                self._retried(
                    lambda: obstore.put(
                        self._store, key, data,
                        mode=mode, use_multipart=multipart, chunk_size=PART_BYTES,
                    ),
                    conditional,
                )
            )  # fmt: skip
        except _ConditionError:
            return None

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket.

        Raises:
            OSError: it cannot be copied.
        """
        self._retried(lambda: obstore.copy(self._store, source, target))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, several at a time; what does not exist is no error.

        Raises:
            OSError: one cannot be deleted.
        """
        # In one call for all, which ends at the first failure, a busy server would fail each attempt.
        with ThreadPoolExecutor(DELETES_AT_A_TIME, "delete") as threads:
            list(threads.map(self._delete, keys))

    def _delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._retried(lambda: obstore.delete(self._store, key))

    def _retried(self, operation: Callable[[], Result], conditional: bool = False) -> Result:
        def attempt() -> Result:
            try:
                return operation()
            except (AlreadyExistsError, PreconditionError):
                raise _ConditionError from None
            except Exception as error:
                raise error_of(error, conditional) from None

        try:
            return retrying(attempt, self._timeout, self._attempts)
        except Transient as failure:
            raise failure.as_os_error() from None


class _ConditionError(Exception):
    """The condition of a write does not hold."""


def check_size(size: int, max_bytes: int | None) -> None:
    """Refuse what is too large.

    Raises:
        OSError: it is.
    """
    if max_bytes is not None and size > max_bytes:
        raise storage_error("too_large", f"{size} bytes; the limit is {max_bytes}")


def _object(meta: ObjectMeta) -> Object:
    return Object(meta["path"], meta["size"], _etag(meta), meta["last_modified"].timestamp())


def _etag(meta: ObjectMeta) -> str:
    return (meta["e_tag"] or "").strip('"')


def _version(found: ObjectMeta | PutResult) -> UpdateVersion:
    version: UpdateVersion = {}
    if etag := found["e_tag"]:
        version["e_tag"] = etag
    if number := found["version"]:
        version["version"] = number
    return version
