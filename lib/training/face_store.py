"""The encoded faces of a split in one file on a disk of this machine, which all its workers share.

Training needs any face at any time; Parquet, and a bucket, give them one after the other. Encoded they
take a few kilobytes each, decoded for VGG-Face some two hundred. The file holds the faces one after the
other, then an int64 for the start of each and for the end of the last, then a magic number of 8 bytes and
an int64 for how many they are. All is little-endian.
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces

ROWS_AT_A_TIME = 256
_FOOTER = struct.Struct("<8sq")
_MAGIC = b"FACES\0\0\1"


class FaceStore:
    """Reads faces of a file of `copy_faces`, from any number of threads and processes at once.

    Attributes:
        file: where it is.
    """

    def __init__(self, file: Path) -> None:
        """Open it.

        Raises:
            UserError: it is not such a file, or damaged.
        """
        self.file = file
        self._opened = file.open("rb", buffering=0)
        size = os.fstat(self._opened.fileno()).st_size
        footer = os.pread(self._opened.fileno(), _FOOTER.size, max(0, size - _FOOTER.size))
        magic, count = _FOOTER.unpack(footer) if len(footer) == _FOOTER.size else (b"", 0)
        start = size - _FOOTER.size - 8 * (count + 1)
        damaged = UserError(f"{str(file)!r} is damaged; delete it, and the faces are copied again")
        if magic != _MAGIC or count < 0 or start < 0:
            raise damaged
        index = os.pread(self._opened.fileno(), 8 * (count + 1), start)
        self._starts: NDArray[np.int64] = np.frombuffer(index, "<i8")
        if self._starts[0] != 0 or self._starts[-1] != start or (np.diff(self._starts) < 0).any():
            raise damaged

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def size(self) -> int:
        """Bytes of all encoded faces."""
        return int(self._starts[-1])

    def read(self, row: int) -> bytes:
        """The encoded face of a row; empty where the source has none."""
        start, end = self._starts[row : row + 2].tolist()
        return os.pread(self._opened.fileno(), end - start, start)


def copy_faces(faces: LabelledFaces, order: str, count: int, cache: Path) -> Path:
    """Copy the encoded faces of a split to a file for `FaceStore`, unless it is there.

    The file appears under its name when it is complete. What a killed copy leaves is overwritten by the
    next one; a second process waits for the one that copies.

    Args:
        faces: the split.
        order: digest of the faces in the order of the files.
        count: how many they are.
        cache: folder on a disk of this machine.

    Raises:
        UserError: there is no room, or the split is not what it was when its labels were read.
    """
    # The digests are of the originals: the files' sizes tell other crops of the same ones apart.
    sizes = sorted(faces.rows.sizes().items())
    key = hashlib.sha256(f"{order} {sizes}".encode()).hexdigest()[:16]
    file = cache / f"{faces.split}-{key}.faces"
    if file.exists():
        return file
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(file.with_suffix(".lock")):
        if not file.exists():
            _copy(faces, count, file)
    return file


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however it does."""
    with file.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy(faces: LabelledFaces, count: int, file: Path) -> None:
    unfinished = file.with_suffix(".unfinished")
    try:
        with unfinished.open("wb", buffering=0) as output:
            _write(faces, count, output)
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _write(faces: LabelledFaces, count: int, output: FileIO) -> None:
    lengths = [np.zeros(1, np.int64)]
    for rows in faces.batches(("image",), ROWS_AT_A_TIME):
        for chunk in rows["image"].chunks:
            ends, data = _encoded(chunk)
            lengths.append(np.diff(ends))
            _put(data, output)
    starts = np.cumsum(np.concatenate(lengths))
    if len(starts) != count + 1:
        raise UserError(
            f"{str(faces.rows)!r} has {len(starts) - 1} faces now, and had {count} when its labels were "
            "read; start again when nothing changes it"
        )
    _put(memoryview(starts.astype("<i8").tobytes() + _FOOTER.pack(_MAGIC, count)), output)
    os.fsync(output.fileno())  # no name before its bytes, even if the power fails


def _put(data: memoryview, output: FileIO) -> None:
    try:
        while data:
            data = data[output.write(data) :]
    except OSError as error:
        raise UserError(
            f"no room for more than {output.tell() / 1e9:.2f} GB of encoded faces in "
            f"{str(Path(str(output.name)).parent)!r} ({error.strerror}); make some, or set TMPDIR to "
            "another disk"
        ) from None


def _encoded(chunk: pa.BinaryArray) -> tuple[NDArray[np.int64], memoryview]:
    """Where the values of a chunk start and end, (n + 1,), and the bytes of all of them."""
    _, offsets, data = chunk.buffers()
    ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    values = memoryview(data if data is not None else b"")
    return ends.astype(np.int64), values[int(ends[0]) : int(ends[-1])]
