"""TensorFlow's settings for one worker process. They hold only before its first operation."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

from lib.common.native_output import native_errors_hidden


@contextmanager
def _absent(*modules: str) -> Iterator[None]:
    """Let imports of these fail, unless they are there already.

    Keras, which TensorFlow imports, takes along what it may find for helpers that nobody calls here: a
    third of the time that a worker needs to start.
    """
    found: dict[str, Any] = sys.modules
    away = [module for module in modules if module not in found]
    found.update(dict.fromkeys(away))
    try:
        yield
    finally:
        for module in away:
            del found[module]


with _absent("matplotlib", "sklearn"), native_errors_hidden():
    import tensorflow as tf

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def configure(threads: int) -> None:
    """Keep TensorFlow and OpenCV to the CPUs that the worker was given; let GPU memory grow.

    Called again in the same process it changes nothing: TensorFlow takes its threads only once.
    """
    cv2.setNumThreads(threads)
    _keep_freed_memory()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # One operation at a time: the networks are chains, a second pool would only idle.
        tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # already running
        return


def _keep_freed_memory() -> None:
    """Let the C library use again what was freed, in place of giving it back for the next batch.

    Every batch takes and frees the same arrays of megabytes. Fresh from the kernel, each of their
    pages must be cleared at its first touch, which took a tenth of the time of finding faces.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # only the GNU library has it
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)
