"""Kernels of an inference graph in half the space, where that changes no answer.

The kernels that a bundle's networks hold are rounded to bfloat16 (`lib.training.card`). Those of the
graph have a factor for each output channel in them besides, of the batch normalisation behind. Stored
apart, as the rounded kernel and its factors, they take half the bytes; ONNX Runtime multiplies them when
it loads the graph, once.
"""

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Kernel = NDArray[np.float32]

LEAST = 4096
"""Numbers in a kernel from which it is worth two operations in the graph."""
EQUAL = 1e-6
"""Relative to the largest number of a channel: what rounding to float32 may leave."""


def halve_kernels(model: onnx.ModelProto, kernels: Iterable[NDArray[np.generic]]) -> None:
    """Replace each kernel of the graph that is one of `kernels` but for a factor for each channel.

    Args:
        model: changed in place.
        kernels: of the networks that it was made from, in the layout of Keras. Only those whose numbers
            bfloat16 can hold are taken.
    """
    known = [_channels_first(k.astype(np.float32)) for k in kernels if k.ndim in (2, 4)]
    rounded = [k for k in known if np.array_equal(k, k.astype(ml_dtypes.bfloat16))]
    graph = model.graph
    for tensor in [t for t in graph.initializer if np.prod(t.dims) >= LEAST]:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim not in (2, 4):
            continue
        # A dense kernel has its outputs last, a convolution's has them first.
        first = values.T if values.ndim == 2 else values
        for kernel in rounded:
            factors = _factors(first, kernel)
            if factors is not None:
                graph.initializer.remove(tensor)
                _add(graph, tensor.name, kernel, factors)
                break


def _channels_first(kernel: Kernel) -> Kernel:
    """(height, width, in, out) or (in, out) → (out, in, height, width) or (out, in)."""
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def _factors(values: Kernel, kernel: Kernel) -> Kernel | None:
    """By output channel what `kernel` is multiplied with to give `values`; None: it does not."""
    if values.shape != kernel.shape:
        return None
    of_channels = values.reshape(len(values), -1).astype(np.float64)
    base = kernel.reshape(len(kernel), -1).astype(np.float64)
    squares = np.sum(base * base, axis=1)
    factors = np.sum(of_channels * base, axis=1) / np.where(squares > 0, squares, 1)
    gaps = np.abs(of_channels - base * factors[:, None]).max(axis=1)
    if not np.all(gaps <= EQUAL * np.abs(of_channels).max(axis=1)):  # nor where one is NaN
        return None
    return factors.astype(np.float32)


def _add(graph: onnx.GraphProto, name: str, kernel: Kernel, factors: Kernel) -> None:
    dense = kernel.ndim == 2
    stored = (kernel.T if dense else kernel).astype(ml_dtypes.bfloat16)
    shape = (1, -1) if dense else (-1, 1, 1, 1)
    half, scale, exact = f"{name}/half", f"{name}/factors", f"{name}/exact"
    graph.initializer.extend(
        [
            helper.make_tensor(
                half, TensorProto.BFLOAT16, stored.shape, stored.tobytes(), raw=True
            ),
            numpy_helper.from_array(factors.reshape(shape), scale),
        ]
    )
    nodes = [
        helper.make_node("Cast", [half], [exact], to=TensorProto.FLOAT),
        helper.make_node("Mul", [exact, scale], [name]),
    ]
    for node in reversed(nodes):  # before all that use them
        graph.node.insert(0, node)
