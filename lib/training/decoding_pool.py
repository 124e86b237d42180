"""Threads or processes that decode encoded faces to squares of pixels.

Python's lock is handed over a dozen times for each face: 16 threads decode less than twice what one does.
Where there are more than a few cores, processes decode. Pixels come back through shared memory: a pipe is
too slow for the 500 MB a second that VGG-Face needs.
"""

import os
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from mmap import mmap
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, LifoQueue
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.common.processes import begin_process
from lib.faces.crop import longer_side_needed_whole, whole
from lib.images import ImageError, Limits, decode
from lib.network_input import CropSpec
from lib.training.face_store import FaceStore

MOST_THREADS = 4
"""More wait for Python's lock: 16 threads decode 3,561 faces/s to 115 pixels, one core some 2,000."""
MOST_PROCESSES = 16
"""Of 65 MB each; one core decodes some 2,000 faces a second, and steps of an H200 took 6,005."""
FACES_OF_A_TASK = 8
"""Faces that are decoded at a time, at least: handing out fewer costs more."""
MOST_FACES_OF_A_TASK = 32
"""At most, in processes: a task costs 0.3 ms here, beside the 16 ms of its faces there. More would only
take larger slots."""
SLOT_BYTES = 8 << 20
"""Of shared memory for a task: 32 faces at 269 pixels, which VGG-Face is trained from, take 6.9 MB."""
SLOTS_OF_A_PROCESS = 2
"""One is filled while the other one waits to be copied."""


class FaceError(Exception):
    """A face that cannot be decoded.

    Attributes:
        row: of it in the store.
        error: the reason.
    """

    def __init__(self, row: int, error: ImageError) -> None:
        super().__init__(row, error)
        self.row, self.error = row, error


class DecodingPool(Protocol):
    """Decodes for any number of stores, and of threads that ask."""

    def decode(
        self,
        store: FaceStore,
        rows: NDArray[np.int64],
        squares: NDArray[np.uint8],
        places: NDArray[np.int64],
    ) -> None:
        """Decode some faces.

        Args:
            store: of the encoded faces.
            rows: int64 (n,), which ones.
            squares: uint8 (m, side, side, 3), where their pixels go, RGB.
            places: int64 (n,), the index of each in `squares`.

        Raises:
            FaceError: a picture cannot be decoded.
            UserError: a process has ended.
        """

    def close(self) -> None:
        """End it; waits for what is in work."""


def open_pool(threads: int) -> DecodingPool:
    """Start threads of this process, or as many processes of one thread each.

    Args:
        threads: how many; above `MOST_THREADS` they are processes.
    """
    if threads <= MOST_THREADS:
        return DecodingThreads(threads)
    return DecodingProcesses(min(threads, MOST_PROCESSES))


class DecodingThreads:
    """Decodes in threads of this process."""

    def __init__(self, count: int) -> None:
        """Prepare; a thread starts when it is needed."""
        # OpenCV needs no threads of its own: each picture has one already.
        self._threads = ThreadPoolExecutor(count, "decode", cv2.setNumThreads, (1,))

    def decode(
        self,
        store: FaceStore,
        rows: NDArray[np.int64],
        squares: NDArray[np.uint8],
        places: NDArray[np.int64],
    ) -> None:
        """See `DecodingPool`."""
        spec = _spec(squares)

        def fill(start: int) -> None:
            end = start + FACES_OF_A_TASK
            for row, place in zip(rows[start:end].tolist(), places[start:end], strict=True):
                squares[place] = _decode(store, row, spec)

        for _ in self._threads.map(fill, range(0, len(rows), FACES_OF_A_TASK)):
            pass

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)


class _Task(NamedTuple):
    """Some faces that a process decodes into a slot.

    Attributes:
        future: is done when they are.
        slot: offset in the shared memory, in bytes.
        places: int64 (n,), where the caller wants them.
    """

    future: Future[None]
    slot: int
    places: NDArray[np.int64]


class DecodingProcesses:
    """Decodes in processes of one thread each, which end with this one.

    A process writes the pixels of a task to a slot of shared memory. The thread that asked for them
    copies them and frees the slot. The memory is an anonymous file: /dev/shm may be small.
    """

    def __init__(self, count: int) -> None:
        """Start them; they import what they need in the background."""
        self._count = count
        slots = range(0, SLOTS_OF_A_PROCESS * count * SLOT_BYTES, SLOT_BYTES)
        self._file = os.memfd_create("faces")
        os.ftruncate(self._file, slots.stop)
        self._memory = mmap(self._file, slots.stop)
        self._path = f"/proc/{os.getpid()}/fd/{self._file}"
        # The slot freed last is used first: the others take no memory until they are needed.
        self._free: LifoQueue[int] = LifoQueue()
        for slot in reversed(slots):
            self._free.put(slot)
        self._processes = ProcessPoolExecutor(count, get_context("spawn"), _begin_process)
        for _ in range(count):
            self._processes.submit(_nothing)  # each of the first tasks starts a process

    def decode(
        self,
        store: FaceStore,
        rows: NDArray[np.int64],
        squares: NDArray[np.uint8],
        places: NDArray[np.int64],
    ) -> None:
        """See `DecodingPool`."""
        tasks: deque[_Task] = deque()
        together = self._faces_of_a_task(len(rows), int(np.prod(squares.shape[1:])))
        try:
            for start in range(0, len(rows), together):
                part = slice(start, start + together)
                # A caller that holds slots never waits for one: two would wait for each other.
                while (slot := self._free_slot(wait=not tasks)) is None:
                    self._finish(tasks, squares)
                tasks.append(
                    self._hand_out(store, rows[part], places[part], slot, squares.shape[1])
                )
            while tasks:
                self._finish(tasks, squares)
        except BrokenProcessPool:
            raise UserError(
                "the processes that decode faces end by themselves: is there enough memory? "
                "a lower --cpus takes less"
            ) from None
        finally:
            self._abandon(tasks)

    def close(self) -> None:
        """End the processes."""
        self._processes.shutdown(cancel_futures=True)
        os.close(self._file)

    def _faces_of_a_task(self, faces: int, face_bytes: int) -> int:
        """How many, so that they fit a slot and every process has some.

        Raises:
            UserError: a slot is too small for a face.
        """
        share = -(-faces // self._count)
        wanted = min(max(share, FACES_OF_A_TASK), MOST_FACES_OF_A_TASK)
        fitting = SLOT_BYTES // face_bytes
        if not fitting:
            raise UserError(
                "the faces are too large to be decoded in processes; "
                f"use --cpus {MOST_THREADS} or a smaller --size"
            )
        return min(wanted, fitting)

    def _free_slot(self, wait: bool) -> int | None:
        """The offset of a slot; None: all are in use, and nobody waits."""
        try:
            return self._free.get(block=wait)
        except Empty:
            return None

    def _hand_out(
        self,
        store: FaceStore,
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        slot: int,
        side: int,
    ) -> _Task:
        """Let a process decode some faces into a slot."""
        file = store.file.absolute()
        try:
            future = self._processes.submit(_decode_to_slot, file, rows, side, self._path, slot)
        except BaseException:
            self._free.put(slot)
            raise
        return _Task(future, slot, places)

    def _finish(self, tasks: deque[_Task], squares: NDArray[np.uint8]) -> None:
        """Wait for the first task, copy its pixels and free its slot."""
        future, slot, places = tasks[0]
        future.result()
        squares[places] = _pixels(self._memory, slot, len(places), squares.shape[1])
        tasks.popleft()
        self._free.put(slot)

    def _abandon(self, tasks: deque[_Task]) -> None:
        """Free the slots of tasks that nobody wants any more, once no process writes to them."""
        for task in tasks:
            if not task.future.cancel():
                task.future.exception()
            self._free.put(task.slot)


def _spec(squares: NDArray[np.uint8]) -> CropSpec:
    return CropSpec(squares.shape[1], "box")


def _decode(store: FaceStore, row: int, spec: CropSpec) -> NDArray[np.uint8]:
    """One face, uint8 (side, side, 3)."""
    try:
        picture = decode(store.read(row), Limits(), at_least=longer_side_needed_whole(spec))
    except ImageError as error:
        raise FaceError(row, error) from None
    return whole(picture.pixels, spec)


def _pixels(memory: mmap, slot: int, faces: int, side: int) -> NDArray[np.uint8]:
    """The squares in a slot, (faces, side, side, 3), not copied."""
    shape = (faces, side, side, 3)
    return np.ndarray(shape, np.uint8, memory, slot)


# What follows runs in the processes.


def _begin_process() -> None:
    begin_process()
    cv2.setNumThreads(1)


def _nothing() -> None:
    """The task of a process that shall only start."""


def _decode_to_slot(file: Path, rows: NDArray[np.int64], side: int, memory: str, slot: int) -> None:
    squares = _pixels(_shared_memory(memory), slot, len(rows), side)
    store, spec = _store(file), _spec(squares)
    for square, row in zip(squares, rows.tolist(), strict=True):
        square[:] = _decode(store, row, spec)


@cache
def _store(file: Path) -> FaceStore:
    return FaceStore(file)


@cache
def _shared_memory(path: str) -> mmap:
    with Path(path).open("r+b") as file:
        return mmap(file.fileno(), 0)
