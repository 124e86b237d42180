"""An S3 object as a file that is read by ranges."""

import errno
import io
from typing import Any

from lib.storage.options import TIMEOUT_SECONDS
from lib.storage.s3 import S3
from lib.storage.s3_errors import as_os_errors


class RangeFile(io.RawIOBase):
    """An object as an unbuffered, seekable file: each read is one request."""

    def __init__(self, s3: S3, bucket: str, key: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._s3, self._bucket, self._key, self._timeout = s3, bucket, key, timeout
        self.size, self.etag = s3.size(bucket, key)
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
        """Read as many bytes as there are and fit."""
        count = max(0, min(len(buffer), self.size - self._position))
        if count:
            with as_os_errors():
                data, etag = self._s3.read(
                    self._bucket, self._key, self._position, count, timeout=self._timeout
                )
            if etag != self.etag:
                raise OSError(errno.EIO, "the file has changed while it was read")
            count = len(data)
            buffer[:count] = data
            self._position += count
        return count
