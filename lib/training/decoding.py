"""Encoded faces → squares of pixels, by threads, ahead of the step that needs them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lib.faces.crop import longer_side_needed_whole, whole
from lib.images import ImageError, Limits, decode
from lib.network_input import CropSpec
from lib.training.face_store import FaceStore

FACES_OF_A_TASK = 8
"""Decoded by a thread at a time: fewer cost more for handing them out."""
BATCHES_AHEAD = 2

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
        threads: int | None = None,
        memory: int = 0,
    ) -> None:
        """Prepare; nothing is decoded yet.

        Args:
            store: of the encoded faces.
            side: of the squares, in pixels.
            refuse: the error for a row that cannot be decoded.
            threads: that decode; None: one for each CPU of this process.
            memory: bytes that decoded faces may take.
        """
        self._store, self._refuse = store, refuse
        self._spec = CropSpec(side, "box")
        self._threads = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)))
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
        """
        squares = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def fill(start: int) -> None:
            for number in range(start, min(start + FACES_OF_A_TASK, len(rows))):
                squares[number] = self._square(int(rows[number]))

        for _ in self._threads.map(fill, range(0, len(rows), FACES_OF_A_TASK)):
            pass
        return squares

    def _square(self, row: int) -> NDArray[np.uint8]:
        if not self.kept_bytes:
            return self._decode(row)
        if not self._is_kept[row]:
            self._kept[row] = self._decode(row)
            self._is_kept[row] = True  # after its pixels: another thread may be asking
        return self._kept[row]

    def _decode(self, row: int) -> NDArray[np.uint8]:
        needed = longer_side_needed_whole(self._spec)
        try:
            picture = decode(self._store.read(row), Limits(), at_least=needed)
        except ImageError as error:
            raise self._refuse(row, error) from None
        return whole(picture.pixels, self._spec)


def ahead(load: Callable[[Part], Loaded], parts: Iterable[Part]) -> Iterator[Loaded]:
    """Load parts one after the other in another thread, up to `BATCHES_AHEAD` before they are needed.

    Raises:
        Exception: what `load` raises, where its part is due.
    """
    waiting: deque[Future[Loaded]] = deque()
    with ThreadPoolExecutor(1) as thread:
        try:
            for part in parts:
                waiting.append(thread.submit(load, part))
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
