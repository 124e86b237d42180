"""YuNet's graph as TensorFlow computes it: the operations of its ONNX file, over batches of images.

ONNX Runtime's packages for CPUs compute on no GPU, and its graph takes one image at a time. The file
has ten kinds of operations, which are translated one by one, from channels first to channels last.

Images of several sizes share a canvas. What lies beyond an image is set to zero before each convolution
that would see it, as the padding at the border of a canvas of the image's own size is: so the outputs are
the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from lib.common.tensorflow_settings import tf

Tensor = Any
Arrays = dict[str, NDArray[Any]]


def load(weights: Path) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """Read the graph.

    Args:
        weights: the ONNX file.

    Returns:
        A function for TensorFlow graphs. It takes float32 (n, side, side, 3), BGR in 0..255, and int32
        (n, 2), rows and columns of each image on its canvas, multiples of the largest stride. It gives
        the outputs by name, (n, rows, columns, numbers), those beyond an image without meaning.

    Raises:
        ValueError: the graph has an operation that is not translated.
    """
    graph = onnx.load(weights).graph
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}

    def network(images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {graph.input[0].name: images}
        masks = _Masks(images, sizes)
        for node in graph.node:
            values[node.output[0]] = _compute(node, values, arrays, masks)
        return {output.name: values[output.name] for output in graph.output}

    return network


class _Masks:
    """1 inside the images and 0 beyond, (n, rows, columns, 1), for maps of any stride."""

    def __init__(self, images: Tensor, sizes: Tensor) -> None:
        self._side = images.shape[1]
        self._sizes = sizes
        self._of_side: dict[int, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        side = x.shape[1]
        if side not in self._of_side:
            rows, columns = (
                tf.sequence_mask(self._sizes[:, axis] * side // self._side, side, x.dtype)
                for axis in (0, 1)
            )
            self._of_side[side] = (rows[:, :, tf.newaxis] * columns[:, tf.newaxis])[..., tf.newaxis]
        return x * self._of_side[side]


def _compute(
    node: onnx.NodeProto, values: dict[str, Tensor], arrays: Arrays, masks: _Masks
) -> Tensor:
    x = values[node.input[0]]
    match node.op_type:
        case "Conv":
            return _convolution(node, x, arrays, masks)
        case "Relu":
            return tf.nn.relu(x)
        case "Sigmoid":
            return tf.sigmoid(x)
        case "MaxPool":
            return tf.nn.max_pool2d(x, 2, 2, "VALID")
        case "Add":
            return x + values[node.input[1]]
        case "Resize":  # to twice the size, each value four times
            return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        case "Transpose" | "Reshape":  # to channels last, flat: they are last, and stay a map
            return x
        case _:
            raise ValueError(
                f"YuNet's graph has the operation {node.op_type}, which is unknown here"
            )


def _convolution(node: onnx.NodeProto, x: Tensor, arrays: Arrays, masks: _Masks) -> Tensor:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    kernel, bias = (arrays[name] for name in node.input[1:])
    strides, border = attributes["strides"][0], attributes["pads"][0]
    padding = "SAME" if border else "VALID"
    if border:
        x = masks(x)
    if border and strides > 1:  # where "SAME" would pad one side alone
        x, padding = tf.pad(x, [[0, 0], [border, border], [border, border], [0, 0]]), "VALID"
    if attributes["group"] > 1:  # each channel by itself
        kernel = kernel.transpose(2, 3, 0, 1)
        x = tf.nn.depthwise_conv2d(x, kernel, [1, strides, strides, 1], padding)
    else:
        x = tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), strides, padding)
    return tf.nn.bias_add(x, bias)
