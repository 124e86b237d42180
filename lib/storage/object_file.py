"""An object of a bucket as a file that is read by ranges."""

import errno
import io
from typing import Any

from lib.storage.bucket import Bucket


class ObjectFile(io.RawIOBase):
    """An object as an unbuffered, seekable file: each read is one request."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        found = bucket.head(key)
        self.size, self.etag = found.size, found.etag
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, without a request."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as there are and fit.

        Raises:
            OSError: they cannot be read, or the object has changed.
        """
        count = max(0, min(len(buffer), self.size - self._position))
        if count:
            data, etag = self._bucket.read(self._key, self._position, count)
            if etag != self.etag:
                raise OSError(errno.EIO, "the file has changed while it was read")
            count = len(data)
            buffer[:count] = data
            self._position += count
        return count
