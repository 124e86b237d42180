"""The GPUs of this machine, and why they cannot be used, without importing TensorFlow."""

import ctypes
import os
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

DEVICES = Path("/dev")
NO_DEVICE, MISMATCH = 100, 803
"""Errors of CUDA's driver: none is visible; its library and its kernel module are of two versions."""
HIDDEN = "CUDA_VISIBLE_DEVICES hides it"
LIBRARIES = ("nvidia.cudnn", "cudnn")
"""Where TensorFlow finds cuDNN, and with it all else: a package of Python, or a library of the system."""
SMALL_GPU = 16 << 30
"""Bytes of a small GPU (NVIDIA T4)."""


class Gpu(NamedTuple):
    """A GPU.

    Attributes:
        name: as its driver says it.
        memory: in bytes.
        capability: compute capability, major and minor.
    """

    name: str
    memory: int
    capability: tuple[int, int]


def usable_gpus() -> tuple[int, str | None]:
    """How many GPUs TensorFlow can use here; if none although there is one, why, in a few words."""
    if not any(DEVICES.glob("nvidia[0-9]*")):
        return 0, None
    count, problem = _count()
    if count and not _has_libraries():
        return (
            0,
            "TensorFlow's CUDA libraries are not installed (pip install 'tensorflow[and-cuda]')",
        )
    return count, problem


def memory_is_full(error: Exception) -> bool:
    """Whether it is TensorFlow's way to say that a device, most often a GPU, has no memory left."""
    return type(
        error
    ).__name__ == "ResourceExhaustedError" or "Dst tensor is not initialized" in str(error)


def memory_of_gpu() -> int:
    """Bytes of the first GPU that this process sees; of the smallest in use where that is unknown."""
    device, size = ctypes.c_int(), ctypes.c_size_t()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return SMALL_GPU
    known = (
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
        and driver.cuDeviceTotalMem_v2(ctypes.byref(size), device) == 0
    )
    return size.value if known else SMALL_GPU


def visible_devices(count: int) -> list[str]:
    """Names of the devices for `CUDA_VISIBLE_DEVICES`, one each."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:count] if given else [str(number) for number in range(count)]


def _count() -> tuple[int, str | None]:
    """GPUs that the driver shows to this process, or why it shows none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, "the library of its driver, libcuda.so.1, is missing"
    code = driver.cuInit(0)
    if code == NO_DEVICE and os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return 0, HIDDEN
    if code:
        reason = "its library is of another version" if code == MISMATCH else f"CUDA error {code}"
        return 0, f"its driver does not start ({reason}); does nvidia-smi work?"
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    return count.value, None if count.value else HIDDEN


def _has_libraries() -> bool:
    package, library = LIBRARIES
    try:
        return find_spec(package) is not None or find_library(library) is not None
    except ModuleNotFoundError:  # not even the parent of the package
        return find_library(library) is not None
