"""TensorFlow's settings for one worker process; set them before its first operation."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

from lib.common.gpus import Gpu, memory_of_gpu
from lib.common.native_output import native_errors_hidden


@contextmanager
def _absent(*modules: str) -> Iterator[None]:
    """Let imports of these modules fail, unless they are imported already.

    Keras imports them for helpers that are not used here, which takes a third of the start of a worker.
    """
    found: dict[str, Any] = sys.modules
    away = [module for module in modules if module not in found]
    found.update(dict.fromkeys(away))
    try:
        yield
    finally:
        for module in away:
            del found[module]


# A driver keeps the kernels that it compiles for its card; TensorFlow's are more than the default holds.
os.environ.setdefault("CUDA_CACHE_MAXSIZE", str(4 << 30))
# Else TensorFlow compiles and times kernels for each convolution: the first step of training took 45 s on
# an H200. Who trains for hours can set it to 1.
os.environ.setdefault("TF_CUDNN_USE_AUTOTUNE", "0")
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


def first_gpu() -> Gpu | None:
    """The GPU that TensorFlow computes on; None: it sees none."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    details = tf.config.experimental.get_device_details(gpus[0])
    return Gpu(
        name=details.get("device_name", gpus[0].name),
        memory=memory_of_gpu(),
        capability=details.get("compute_capability", (0, 0)),
    )


def compute_float32_in_full() -> None:
    """Keep GPUs from rounding float32 to TensorFloat-32: labels are to be those of CPUs."""
    tf.config.experimental.enable_tensor_float_32_execution(False)


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next batch instead of returning it to the kernel.

    Every batch allocates and frees the same arrays of megabytes. The kernel clears each new page at its
    first touch, which took a tenth of the time of face detection.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc only
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)
