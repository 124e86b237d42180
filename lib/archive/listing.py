"""Listings of folders, local and in object storage, in the order of the names.

A listing can begin behind any file, so it can be resumed. A symbolic link to a file counts as that file
under the name of the link, so that caches of links can be read, as Hugging Face's hub makes them. Links
to folders are not followed, since they may lead in a circle; a source that is one is followed.
"""

# A Path for each of millions of files would take longer than the listing:
# ruff: noqa: PTH116, PTH118, PTH208

import errno
import logging
import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Queue
from threading import Event

from lib.archive.entry import TABLES_OF_IMAGES, TAR, Entry, File, Skip, is_image, suffix_of
from lib.archive.selection import Selection
from lib.common.errors import UserError, reason_of
from lib.storage.bucket import Bucket, Object, Prefix
from lib.storage.buckets import open_bucket
from lib.storage.fetch import local_etag
from lib.storage.options import StorageOptions
from lib.storage.uris import bucket_and_key, local_path, local_uri

PREFIXES_AT_A_TIME = 16
MOST_AHEAD = 10_000
"""Keys that may wait for a folder before them."""
PAGES_AHEAD = 4
"""Pages of a thousand keys that wait in the queue of each prefix."""
MOST_PREFIXES = 500
"""With more folders, a request for each would cost more than one listing of all keys."""

NOWHERE = "not_found: the symbolic link leads nowhere"
_TO_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What the system says of such links."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalListing:
    """A local folder. Memory grows with its largest single folder, not with the archive."""

    root: str
    selection: Selection

    def files(self, after: str | None = None) -> Iterator[File | Skip | Entry]:
        """Depth first, each folder by its sorted names; without recursion, because folders nest deep.

        A folder that is passed over is one `Skip`; a link to an image that leads nowhere is an `Entry`.

        Args:
            after: uri of a file; only what comes behind it.
        """
        behind = None if after is None else str(local_path(after)).split("/")
        levels = [iter([self.root])]
        while levels:
            path = next(levels[-1], None)
            if path is None:
                levels.pop()
                continue
            if behind is not None and _is_passed(path, behind):
                continue
            try:
                info = os.stat(path, follow_symlinks=path == self.root)
                is_folder = stat.S_ISDIR(info.st_mode)
                if reason := self._why_passed_over(path, is_folder):
                    yield Skip(reason)
                elif is_folder:
                    levels.append(_children(path))
                elif behind is not None and path.split("/") == behind:
                    continue
                else:
                    yield _found(path, info)
            except OSError as error:
                logger.warning("passed over %r: %s", path, error.strerror)
                yield Skip("unreadable")

    def _why_passed_over(self, path: str, is_folder: bool) -> str | None:
        if path == self.root:
            return None
        return self.selection.why_skipped(f"{path}/" if is_folder else path)


def _is_passed(path: str, behind: list[str]) -> bool:
    parts = path.split("/")
    return parts < behind[: len(parts)]


def _children(folder: str) -> Iterator[str]:
    names = sorted(os.listdir(folder))
    return (os.path.join(folder, name) for name in names)


def _found(path: str, info: os.stat_result) -> File | Skip | Entry:
    """What a file or a link is.

    Args:
        path: no folder.
        info: of the path itself.
    """
    if stat.S_ISLNK(info.st_mode):
        try:
            info = os.stat(path)
        except OSError as error:
            if error.errno not in _TO_NOWHERE:
                raise
            if holds_images(path):
                return Entry(local_uri(path), None, None, fault=NOWHERE)
            return Skip("other file type")
    if reason := why_skipped(path, info.st_mode):
        return Skip(reason)
    return File(local_uri(path), info.st_size, local_etag(info))


def why_skipped(path: str, mode: int) -> str | None:
    """The reason to skip a local file; None for images and files of images.

    Args:
        path: of a file, or of a link.
        mode: of the file, or of what the link leads to.
    """
    if stat.S_ISDIR(mode):
        return "link to a folder"
    if not holds_images(path):
        return "other file type"
    return None if stat.S_ISREG(mode) else "not a regular file"


def holds_images(uri: str) -> bool:
    """Whether a file in a folder is an image or a file of images, by its name."""
    return is_image(uri) or suffix_of(uri) in (TAR, *TABLES_OF_IMAGES)


@dataclass(frozen=True)
class BucketListing:
    """A prefix of keys in a bucket. Its folders are listed in parallel and yielded in order."""

    uri: str
    options: StorageOptions

    def files(self, after: str | None = None) -> Iterator[File | Skip]:
        """All objects below the prefix by key.

        Args:
            after: uri of an object; only what comes behind it.

        Raises:
            UserError: the prefix cannot be listed.
        """
        behind = bucket_and_key(after)[1] if after else ""
        try:
            bucket, prefix = open_bucket(self.uri, self.options)
            for item in _objects(bucket, prefix, behind):
                yield from _as_file(self.uri.removesuffix(prefix), item)
        except OSError as error:
            raise UserError(f"cannot list {self.uri!r}: {reason_of(error)}") from None


def _as_file(bucket: str, item: Object) -> Iterator[File | Skip]:
    if item.key.endswith("/"):
        return  # some programs create such an object for a folder
    if holds_images(item.key):
        yield File(f"{bucket}{item.key}", item.size, item.etag)
    else:
        yield Skip("other file type", f"{bucket}{item.key}")


def _objects(bucket: Bucket, prefix: str, behind: str) -> Iterator[Object]:
    top = bucket.pages(prefix, folders=True)
    page = next(top, [])
    if sum(isinstance(item, Prefix) for item in page) > MOST_PREFIXES:
        for page in bucket.pages(prefix, behind):
            yield from (item for item in page if isinstance(item, Object))
        return
    with _Prefixes(bucket) as prefixes:
        ahead: deque[Object | Iterator[Object]] = deque()
        folders = 0  # among them
        while True:
            for item in page:
                if isinstance(item, Object):
                    if item.key.encode() <= behind.encode():
                        continue
                    if not ahead:
                        yield item
                        continue
                    ahead.append(item)
                elif item.key.encode() > behind.encode() or behind.startswith(item.key):
                    after = behind if behind.startswith(item.key) else ""
                    ahead.append(prefixes.start(item.key, after))
                    folders += 1
                while folders >= PREFIXES_AT_A_TIME or len(ahead) > MOST_AHEAD:
                    folders -= not isinstance(ahead[0], Object)
                    yield from _take(ahead)
            try:
                page = next(top)
            except StopIteration:
                break
        while ahead:
            yield from _take(ahead)


def _take(ahead: "deque[Object | Iterator[Object]]") -> Iterator[Object]:
    first = ahead.popleft()
    if isinstance(first, Object):
        yield first
    else:
        yield from first


class _Prefixes:
    """Lists prefixes in threads, each at most `PAGES_AHEAD` pages ahead of its reader."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(PREFIXES_AT_A_TIME, "listing")
        self._stop = Event()
        self._queues: list[Queue[list[Object] | Exception | None]] = []

    def __enter__(self) -> "_Prefixes":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for queue in self._queues:
            while not queue.empty():  # a thread may be blocked by a full queue
                queue.get_nowait()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def start(self, prefix: str, after: str) -> Iterator[Object]:
        """Start to list a prefix; gives its objects."""
        pages: Queue[list[Object] | Exception | None] = Queue(PAGES_AHEAD)
        self._queues.append(pages)
        self._threads.submit(self._list, prefix, after, pages)
        return self._taken(pages)

    def _list(
        self, prefix: str, after: str, pages: "Queue[list[Object] | Exception | None]"
    ) -> None:
        try:
            for page in self._bucket.pages(prefix, after):
                pages.put([item for item in page if isinstance(item, Object)])
                if self._stop.is_set():
                    return
            pages.put(None)
        except Exception as error:  # raised again in the reader
            pages.put(error)

    def _taken(self, pages: "Queue[list[Object] | Exception | None]") -> Iterator[Object]:
        while (page := pages.get()) is not None:
            if isinstance(page, Exception):
                raise page
            yield from page
        self._queues.remove(pages)
