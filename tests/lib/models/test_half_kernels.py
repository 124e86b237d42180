"""Kernels in half precision beside their factors: the graph answers the same, to the bit."""

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lib.models.half_kernels import halve_kernels

SIDE, CHANNELS, CLASSES = 3, 64, 101


def rounded(*shape: int) -> NDArray[np.float32]:
    values = np.random.default_rng(len(shape)).normal(size=shape)
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def made(convolution: NDArray[np.float32], dense: NDArray[np.float32]) -> ModelProto:
    """A convolution, its mean, and a dense layer; kernels in the layout of Keras."""
    tensors = {"convolution": convolution.transpose(3, 2, 0, 1), "dense": dense}
    nodes = [
        helper.make_node("Conv", ["x", "convolution"], ["y"]),
        helper.make_node("GlobalAveragePool", ["y"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["z"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 9, 9])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", CLASSES])
    values = [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in tensors.items()]
    graph = helper.make_graph(nodes, "g", [x], [z], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answers(model: ModelProto) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 9)).astype(np.float32)
    return session.run(None, {"x": x})[0]


def halved(model: ModelProto, *kernels: NDArray[np.float32]) -> ModelProto:
    result = ModelProto()
    result.CopyFrom(model)
    halve_kernels(result, kernels)
    return result


def test_kernels_with_a_factor_for_each_channel() -> None:
    kernel, dense = rounded(SIDE, SIDE, 3, 512), rounded(512, CLASSES)
    factors = np.random.default_rng(1).normal(size=512).astype(np.float32)
    factors[7] = 0  # a channel that batch normalisation has switched off
    model = made(kernel * factors, dense)
    small = halved(model, dense, kernel)
    assert small.ByteSize() < 0.55 * model.ByteSize()
    np.testing.assert_array_equal(answers(small), answers(model))


@pytest.mark.parametrize("change", [1.001, np.nan])
def test_other_kernels_stay_as_they_are(change: float) -> None:
    """Where one number is not the kernel's, whatever it is."""
    kernel, dense = rounded(SIDE, SIDE, 3, 512), rounded(512, CLASSES)
    other = kernel.copy()
    other[1, 1, 1, 1] *= np.float32(change)
    model = made(other, dense)
    kept = halved(model, kernel)
    assert kept.ByteSize() == model.ByteSize()


def test_kernels_that_are_not_rounded_stay_as_they_are() -> None:
    kernel, dense = rounded(SIDE, SIDE, 3, 512), rounded(512, CLASSES) * np.float32(1.001)
    model = made(kernel, dense)
    assert halved(model, dense).ByteSize() == model.ByteSize()
