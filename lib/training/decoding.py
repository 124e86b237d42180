"""Encoded faces → squares of pixels, ahead of the step that needs them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lib.images import ImageError
from lib.training.decoding_pool import DecodingPool, FaceError
from lib.training.face_store import FaceStore

BATCHES_AHEAD = 2
BATCHES_AHEAD_OF_A_GPU = 5
"""TensorFlow copies to a GPU behind all steps that were handed to it: who loads a batch waits for one or
two of them. With two at once an H200 got a batch every 249 ms, and was busy for 177 of them."""

Part = TypeVar("Part")
Loaded = TypeVar("Loaded")


class FaceDecoder:
    """All faces of a store as an array of squares, each decoded when it is asked for.

    They are kept only where all of them fit the memory that it may use; else each is decoded again in
    every epoch.
    """

    def __init__(
        self,
        store: FaceStore,
        side: int,
        refuse: Callable[[int, ImageError], Exception],
        pool: DecodingPool,
        memory: int = 0,
    ) -> None:
        """Prepare; nothing is decoded yet.

        Args:
            store: of the encoded faces.
            side: of the squares, in pixels.
            refuse: the error for a row that cannot be decoded.
            pool: decodes; others may use it, too.
            memory: bytes that decoded faces may take.
        """
        self._store, self._refuse, self._pool = store, refuse, pool
        self.shape = (len(store), side, side, 3)
        self.kept_bytes = int(np.prod(self.shape))
        """Bytes of all decoded faces where they are kept; else 0."""
        if self.kept_bytes > memory:
            self.kept_bytes = 0
        # The system gives a page of it when it is first written to.
        self._kept = np.empty(self.shape if self.kept_bytes else (0, side, side, 3), np.uint8)
        self._is_kept = np.zeros(len(self._kept), bool)

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode some rows, (n,) → uint8 (n, side, side, 3), RGB.

        Raises:
            Exception: that of `refuse`, for a picture that cannot be decoded.
            UserError: a process that decodes has ended.
        """
        if not self.kept_bytes:
            squares = np.empty((len(rows), *self.shape[1:]), np.uint8)
            self._decode(rows, squares, np.arange(len(rows)))
            return squares
        missing = np.unique(rows[~self._is_kept[rows]])
        self._decode(missing, self._kept, missing)
        self._is_kept[missing] = True  # after their pixels: another thread may be asking
        return self._kept[rows]

    def _decode(
        self, rows: NDArray[np.int64], squares: NDArray[np.uint8], places: NDArray[np.int64]
    ) -> None:
        try:
            self._pool.decode(self._store, rows, squares, places)
        except FaceError as face:
            raise self._refuse(face.row, face.error) from None


def ahead(
    load: Callable[[Part], Loaded], parts: Iterable[Part], most: int = BATCHES_AHEAD
) -> Iterator[Loaded]:
    """Load parts in other threads, up to `most` before they are needed; yields them in order.

    As many are loaded at once: while one is copied, the next one is decoded.

    Raises:
        Exception: what `load` raises, where its part is due.
    """
    waiting: deque[Future[Loaded]] = deque()
    with ThreadPoolExecutor(most) as threads:
        try:
            for part in parts:
                waiting.append(threads.submit(load, part))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
