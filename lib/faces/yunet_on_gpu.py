"""YuNet for whole batches of images, computed by TensorFlow, on a GPU where there is one.

It finds what `lib.faces.yunet` finds, with the same weights. Threads shrink the images and put them on
canvases; the device computes the network and decodes the boxes that reach the threshold, of all images
in one call; of these few the host keeps the best.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.common.tensorflow_settings import compute_float32_in_full, configure, tf
from lib.faces.boxes import Image, ratio, round_up, shrink_fast
from lib.faces.detections import Detections
from lib.faces.yunet import CANVAS, SMALLER, STRIDES, THRESHOLD, WEIGHTS, Found, best_of
from lib.faces.yunet_network import load as load_network

BATCHES = (4, 16, 64)
"""Numbers of images in one call; fewer are filled up, so that the device sees few shapes. The first layer
takes 13 MB of an image."""


def load(threads: int) -> "YunetInBatches":
    """Load the detector, with `threads` for what TensorFlow computes on the host."""
    configure(threads)
    compute_float32_in_full()
    return YunetInBatches()


class Prepared(NamedTuple):
    """An image as it is looked at.

    Attributes:
        image: as it came.
        large: shrunk to `CANVAS` pixels.
        small: shrunk to `CANVAS // SMALLER` pixels.
    """

    image: Image
    large: Image
    small: Image


class YunetInBatches:
    """Finds faces with YuNet: see `lib.faces.detections.BatchDetector`."""

    def __init__(self) -> None:
        self.canvas = CANVAS
        self._network = load_network(WEIGHTS)
        self._graphs = {side: self._graph(side) for side in (CANVAS, CANVAS // SMALLER)}

    def prepare(self, image: Image) -> Prepared:
        """Shrink an image to both of its sizes."""
        large = shrink_fast(image, CANVAS)
        return Prepared(image, large, shrink_fast(large, CANVAS // SMALLER))

    def look(self, prepared: Sequence[Prepared]) -> list[tuple[Found, Found]]:
        """What the network finds in each image in its two sizes, in pixels of the canvases."""
        parts = [
            prepared[start : start + BATCHES[-1]] for start in range(0, len(prepared), BATCHES[-1])
        ]
        # Both calls of all parts go to the device before the first result is fetched.
        calls = [
            [
                self._begin([p.large for p in part], CANVAS),
                self._begin([p.small for p in part], CANVAS // SMALLER),
            ]
            for part in parts
        ]
        return [
            found
            for part, (large, small) in zip(parts, calls, strict=True)
            for found in zip(_split(large, len(part)), _split(small, len(part)), strict=True)
        ]

    def finish(self, prepared: Prepared, seen: tuple[Found, Found]) -> Detections:
        """The faces of one image."""
        image = prepared.image
        large, small = (
            found.scaled(ratio(image, shrunk))
            for found, shrunk in zip(seen, (prepared.large, prepared.small), strict=True)
        )
        return best_of(image, large, small, THRESHOLD)

    def _begin(self, images: Sequence[Image], side: int) -> list[Any]:
        """Send shrunk images to the device; gives its answer, which may not be there yet."""
        count = next(batch for batch in BATCHES if batch >= len(images))
        canvases = np.empty((count, side, side, 3), np.uint8)
        # What fills up the batch has no size, hence no face.
        sizes = np.zeros((count, 2), np.int32)
        for number, image in enumerate(images):
            _put(image, canvases[number])
            sizes[number] = [round_up(length, STRIDES[-1]) for length in image.shape[:2]]
        return self._graphs[side](tf.constant(canvases), tf.constant(sizes))

    def _graph(self, side: int) -> Any:
        """For canvases of a side. Traced here: TensorFlow warns when several threads wait for that."""
        images = tf.TensorSpec((None, side, side, 3), tf.uint8)
        sizes = tf.TensorSpec((None, 2), tf.int32)
        return tf.function(self._found, autograph=False).get_concrete_function(images, sizes)

    def _found(self, images: Any, sizes: Any) -> list[Any]:
        """Boxes that reach the threshold: numbers of their images, corners, scores, landmarks."""
        outputs = self._network(tf.cast(images[..., ::-1], tf.float32), sizes)
        levels = [_decoded(outputs, stride, sizes) for stride in STRIDES]
        boxes, scores, points = (tf.concat(parts, axis=1) for parts in zip(*levels, strict=True))
        some = tf.where(scores >= THRESHOLD)
        return [some[:, 0], *(tf.gather_nd(values, some) for values in (boxes, scores, points))]


def _decoded(outputs: dict[str, Any], stride: int, sizes: Any) -> tuple[Any, Any, Any]:
    """What a level says of all of its places, (n, places, …): corners, scores, landmarks."""
    classes, objects, boxes, points = (
        outputs[f"{name}_{stride}"] for name in ("cls", "obj", "bbox", "kps")
    )
    side = classes.shape[1]
    rows, columns = tf.meshgrid(tf.range(side), tf.range(side), indexing="ij")
    inside = (rows * stride < sizes[:, 0, tf.newaxis, tf.newaxis]) & (
        columns * stride < sizes[:, 1, tf.newaxis, tf.newaxis]
    )
    scores = tf.sqrt(classes[..., 0] * objects[..., 0]) * tf.cast(inside, tf.float32)
    places = tf.cast(tf.stack([columns, rows], axis=-1), tf.float32)
    centre = (places + boxes[..., :2]) * stride
    half = tf.exp(boxes[..., 2:]) * (stride / 2)
    corners = tf.concat([centre - half, centre + half], axis=-1)
    landmarks = (tf.tile(places, [1, 1, 5]) + points) * stride
    flat = (-1, side * side)
    return (
        tf.reshape(corners, (*flat, 4)),
        tf.reshape(scores, flat),
        tf.reshape(landmarks, (*flat, 10)),
    )


def _split(answer: list[Any], count: int) -> list[Found]:
    """The answer for a batch, by image; `tf.where` gives them in order."""
    images, boxes, scores, points = (value.numpy() for value in answer)
    ends = np.searchsorted(images, np.arange(1, count))
    return [
        Found(b, s, p.reshape(-1, 5, 2))
        for b, s, p in zip(
            np.split(boxes, ends), np.split(scores, ends), np.split(points, ends), strict=True
        )
    ]


def _put(image: Image, canvas: NDArray[np.uint8]) -> None:
    """Put an image into the corner of a canvas, and black beside it."""
    rows, columns = image.shape[:2]
    canvas[:rows, :columns] = image
    canvas[:rows, columns:] = 0
    canvas[rows:] = 0
