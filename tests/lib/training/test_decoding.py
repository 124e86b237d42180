"""Faces are decoded by threads and by processes alike."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import psutil
import pytest

from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.images import ImageError
from lib.storage.folder import folder as as_folder
from lib.training import decoding_pool
from lib.training.decoding_pool import (
    MOST_FACES_OF_A_TASK,
    MOST_THREADS,
    SLOT_BYTES,
    SLOTS_OF_A_PROCESS,
    DecodingPool,
    DecodingProcesses,
    DecodingThreads,
    open_pool,
)
from lib.training.faces import Faces, open_faces, read_labels
from tests.lib.training.test_ingest import encoded, with_images
from tests.made_faces import make_faces
from tests.ray_head import PROJECT, wait_until

SIDE, COUNT = 38, 27
PROCESSES = 2
BYTES = COUNT * SIDE**2 * 3
PARENT = f"""
import sys
from multiprocessing import active_children
from lib.training.decoding_pool import DecodingProcesses
if __name__ == "__main__":
    pool = DecodingProcesses({PROCESSES})
    print(*(process.pid for process in active_children()), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("faces"), train=COUNT, val=3)


@pytest.fixture(scope="module")
def processes() -> Iterator[DecodingProcesses]:
    with closing(DecodingProcesses(PROCESSES)) as pool:
        yield pool


def opened(made: Path, cache: Path, pool: DecodingPool, side: int = SIDE, memory: int = 0) -> Faces:
    faces = LabelledFaces(as_folder(made), "train")
    return open_faces(faces, read_labels(faces), side, cache, pool, memory)


def started() -> list[int]:
    return [process.pid for process in active_children() if process.pid]


def test_a_few_threads_decode_here_and_more_are_processes() -> None:
    before = set(started())
    with closing(open_pool(MOST_THREADS)) as few:
        assert isinstance(few, DecodingThreads)
        assert set(started()) == before
    with closing(open_pool(MOST_THREADS + 1)) as many:
        assert isinstance(many, DecodingProcesses)
        assert len(set(started()) - before) == MOST_THREADS + 1
    assert set(started()) == before


def test_a_large_machine_has_no_more_processes_than_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_pool, "MOST_THREADS", 1)
    monkeypatch.setattr(decoding_pool, "MOST_PROCESSES", 2)
    before = set(started())
    with closing(open_pool(64)):
        assert len(set(started()) - before) == 2


def test_both_decode_the_same_pixels(
    made: Path, tmp_path: Path, processes: DecodingProcesses
) -> None:
    """Two threads ask at once, each for more tasks than there are slots."""
    slots = SLOTS_OF_A_PROCESS * PROCESSES
    rows = np.random.default_rng(0).integers(0, COUNT, 2 * slots * MOST_FACES_OF_A_TASK + 1)
    with closing(DecodingThreads(2)) as threads:
        expected = opened(made, tmp_path, threads).images()[rows]
    faces = opened(made, tmp_path, processes)
    with ThreadPoolExecutor(2) as callers:
        for images in callers.map(faces.images, [rows, rows]):
            np.testing.assert_array_equal(images, expected)
    assert faces.images(slice(0)).shape == (0, SIDE, SIDE, 3)


def test_large_faces_are_fewer_in_a_task(
    made: Path, tmp_path: Path, processes: DecodingProcesses
) -> None:
    side = int((SLOT_BYTES / 3 / 2) ** 0.5)
    with closing(DecodingThreads(2)) as threads:
        expected = opened(made, tmp_path, threads, side).images(slice(5))
    np.testing.assert_array_equal(
        opened(made, tmp_path, processes, side).images(slice(5)), expected
    )
    with pytest.raises(UserError, match="too large to be decoded in processes"):
        opened(made, tmp_path, processes, 2 * side).images(slice(5))


def test_kept_faces_are_decoded_once_only(
    made: Path, tmp_path: Path, processes: DecodingProcesses
) -> None:
    with closing(DecodingProcesses(PROCESSES)) as pool:
        faces = opened(made, tmp_path, pool, memory=BYTES)
        some = np.array([20, 3, 3, 11])
        np.testing.assert_array_equal(faces.images(some), faces.images()[some])
        assert faces.decoder.kept_bytes == BYTES
    expected = opened(made, tmp_path, processes).images()
    np.testing.assert_array_equal(faces.images(), expected)  # nothing is left that could decode
    np.testing.assert_array_equal(faces.images(some), expected[some])


def test_a_bad_picture_is_named_by_a_process(
    made: Path, tmp_path: Path, processes: DecodingProcesses
) -> None:
    images: list[bytes | None] = [*encoded(made)[:5], b"no picture", *encoded(made)[6:]]
    faces = opened(with_images(made, tmp_path / "bad", images), tmp_path, processes)
    for _ in range(2 * SLOTS_OF_A_PROCESS * PROCESSES):  # no error keeps a slot
        with pytest.raises(
            UserError, match=r"made:5 in the split train.*cannot be decoded \(not an image\)"
        ):
            faces.images()
    assert len(faces.images(slice(6, None))) == COUNT - 6


def test_the_error_of_a_picture_travels_whole() -> None:
    error = pickle.loads(pickle.dumps(ImageError("too_large", "too many pixels")))
    assert isinstance(error, ImageError)
    assert (error.status, str(error)) == ("too_large", "too many pixels")


def test_a_killed_process_is_said(made: Path, tmp_path: Path) -> None:
    before = set(started())
    with closing(DecodingProcesses(PROCESSES)) as pool:
        faces = opened(made, tmp_path, pool)
        faces.images()
        victim, *_ = set(started()) - before
        os.kill(victim, signal.SIGKILL)
        errors: list[UserError] = []

        def fails() -> bool:
            """The other process may still do some tasks until the death is seen."""
            try:
                faces.images()
            except UserError as error:
                errors.append(error)
            return bool(errors)

        wait_until(fails, 30)
        # It stays so, and nobody waits for what never comes.
        for _ in range(2 * SLOTS_OF_A_PROCESS * PROCESSES):
            with pytest.raises(UserError, match="end by themselves: is there enough memory"):
                faces.images()
    assert errors[0].__suppress_context__
    assert "\n" not in str(errors[0])


def test_none_is_left_when_the_pool_is_closed() -> None:
    before, files = set(started()), psutil.Process().num_fds()
    for _ in range(2):
        with closing(DecodingProcesses(PROCESSES)):
            children = set(started()) - before
            assert len(children) == PROCESSES
        assert not any(map(psutil.pid_exists, children))
    assert psutil.Process().num_fds() <= files + 2  # of multiprocessing's own tracker


def test_none_is_left_when_the_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == PROCESSES
        parent.kill()
    wait_until(lambda: not any(map(psutil.pid_exists, children)), 30)
