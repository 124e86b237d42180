"""PNet, RNet and ONet of MTCNN as TensorFlow graphs, with the weights of the PyPI package `mtcnn` 1.0.0.

Along the last axis each network gives the offsets of the box's corners, x, y, x, y, in units of its
size, and the logit of a face; ONet adds the x, then the y of five landmarks. The softmax of two that was
trained is one logit here, the difference of both: on a page of PNet's, TensorFlow's softmax takes a third
of the time of all convolutions.

The graphs are not compiled with XLA: on a CPU that was measured to be slower, by a quarter (ONet) to four
fifths (PNet).
"""

from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from lib.common.tensorflow_settings import tf
from lib.faces.boxes import Floats, Image, round_up

Tensor = Any
Network = Callable[[Tensor], Tensor]

GREY = 127.5
"""The pixel value that is 0 to the networks."""


class BoxNetwork:
    """RNet or ONet on the inside of boxes, a fixed number of boxes at a time."""

    def __init__(self, network: Network, side: int, batch: int) -> None:
        self._side = side
        self._batch = batch
        self._graph = graph(network, (batch, side, side, 3))

    def __call__(self, images: list[Image], boxes: list[Floats]) -> list[Floats]:
        """For the boxes (n, 4) of each image what the network says of them, (n, columns)."""
        padded = round_up(sum(map(len, boxes)), self._batch)
        ends = np.cumsum([len(of_image) for of_image in boxes], dtype=int)
        crops = np.zeros((padded, self._side, self._side, 3), np.float32)
        for image, of_image, end in zip(images, boxes, ends, strict=True):
            if len(of_image):
                crops[end - len(of_image) : end] = _crop(image, of_image, self._side)
        seen = np.zeros((padded, self._graph.structured_outputs.shape[1]), np.float32)
        for start in range(0, padded, self._batch):
            part = slice(start, start + self._batch)
            seen[part] = self._graph(tf.constant(crops[part])).numpy()
        return [seen[end - len(of_image) : end] for of_image, end in zip(boxes, ends, strict=True)]


def graph(network: Network, shape: tuple[int | None, ...]) -> Any:
    """The network as one graph for one shape: traced here, and never again."""
    function = tf.function(network, autograph=False)
    return function.get_concrete_function(tf.TensorSpec(shape, tf.float32))


def pnet(page: Tensor) -> Tensor:
    """Propose boxes: float32 (1, rows, columns, 3) in 0..255 → (1, places, places, 5)."""
    w = _weights("pnet")
    x = _conv(page, w, pool=2)
    x = _conv(x, w)
    x = _conv(x, w)
    offsets_kernel, offsets_bias, logits_kernel, logits_bias = w
    kernel = np.concatenate([offsets_kernel, np.diff(logits_kernel)], axis=-1)
    return tf.nn.conv2d(x, kernel, 1, "VALID") + np.concatenate(
        [offsets_bias, np.diff(logits_bias)]
    )


def rnet(crops: Tensor) -> Tensor:
    """Refine boxes: float32 (n, 24, 24, 3) in 0..255 → (n, 5)."""
    w = _weights("rnet")
    x = _conv(crops, w, pool=3)
    x = _conv(x, w, pool=3, padding="VALID")
    x = _conv(x, w)
    x = _prelu(_dense(_flatten(x), w), next(w))
    offsets, logits = _dense(x, w), _dense(x, w)
    return tf.concat([offsets, logits[:, 1:] - logits[:, :1]], axis=-1)


def onet(crops: Tensor) -> Tensor:
    """Refine boxes and place landmarks: float32 (n, 48, 48, 3) in 0..255 → (n, 15)."""
    w = _weights("onet")
    x = _conv(crops, w, pool=3)
    x = _conv(x, w, pool=3, padding="VALID")
    x = _conv(x, w, pool=2)
    x = _conv(x, w)
    x = _prelu(_dense(_flatten(x), w), next(w))
    offsets, landmarks, logits = _dense(x, w), _dense(x, w), _dense(x, w)
    return tf.concat([offsets, logits[:, 1:] - logits[:, :1], landmarks], axis=-1)


def _weights(name: str) -> Iterator[NDArray[np.float32]]:
    """The arrays of a network in the order of its layers, for pixels of 0..255.

    The file is found without importing the package, which would run `tf.keras`.
    """
    path = distribution("mtcnn").locate_file(f"mtcnn/assets/weights/{name}.lz4")
    kernel, bias, *others = joblib.load(path)
    # They were trained on (pixels - 127.5) / 128; the first convolution can do that as it goes.
    kernel = kernel / 128
    return iter([kernel, bias - GREY * kernel.sum(axis=(0, 1, 2)), *others])


def _conv(x: Tensor, w: Iterator[Any], pool: int = 0, padding: str = "SAME") -> Tensor:
    x = tf.nn.bias_add(tf.nn.conv2d(x, next(w), 1, "VALID"), next(w))
    slope = next(w)
    if not pool:
        return _prelu(x, slope)
    # A PReLU has its maximum over a window at the window's highest or lowest value, whatever the
    # sign of the slope; pooling first leaves it a quarter of the values.
    highest = tf.nn.max_pool2d(x, pool, 2, padding)
    lowest = -tf.nn.max_pool2d(-x, pool, 2, padding)
    return tf.maximum(_prelu(highest, slope), _prelu(lowest, slope))


def _dense(x: Tensor, w: Iterator[Any]) -> Tensor:
    return x @ next(w) + next(w)


def _prelu(x: Tensor, slope: NDArray[np.float32]) -> Tensor:
    if (slope <= 1).all():
        return tf.maximum(x, slope * x)  # the same in less time
    return tf.maximum(x, 0) + slope * tf.minimum(x, 0)


def _flatten(x: Tensor) -> Tensor:
    """Column by column: the weights come from a framework that stores images so."""
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [x.shape[0], -1])


def _crop(image: Image, boxes: Floats, side: int) -> NDArray[np.float32]:
    """The inside of the boxes, (n, side, side, 3), 0..255, and grey beyond the image."""
    height, width = image.shape[:2]
    corners = boxes[:, [1, 0, 3, 2]] / [height, width, height, width]
    crops = tf.image.crop_and_resize(
        image[np.newaxis],
        corners.astype(np.float32),
        np.zeros(len(boxes), np.int32),
        (side, side),
        extrapolation_value=GREY,
    )
    return crops.numpy()


def probability(logits: Floats) -> Floats:
    """Of a face, 0..1."""
    return 1 / (1 + np.exp(-logits))
