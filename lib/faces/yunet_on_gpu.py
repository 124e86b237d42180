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
from lib.faces.boxes import Image, round_up, shrink_fast
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
        large: canvas of `CANVAS` pixels, uint8 (side, side, 3), RGB, the shrunk image in its corner.
        small: the same, of `CANVAS // SMALLER` pixels.
        sizes: rows and columns of the shrunk image on each canvas, large and small.
    """

    image: Image
    large: Image
    small: Image
    sizes: tuple[tuple[int, int], tuple[int, int]]


class YunetInBatches:
    """Finds faces with YuNet: see `lib.faces.detections.BatchDetector`."""

    def __init__(self) -> None:
        self.canvas = CANVAS
        self._network = load_network(WEIGHTS)
        self._graphs = {side: self._graph(side) for side in (CANVAS, CANVAS // SMALLER)}

    def prepare(self, image: Image) -> Prepared:
        """Shrink an image to both of its sizes."""
        large = shrink_fast(image, CANVAS)
        small = shrink_fast(large, CANVAS // SMALLER)
        sizes = large.shape[:2], small.shape[:2]
        return Prepared(
            image, _on_canvas(large, CANVAS), _on_canvas(small, CANVAS // SMALLER), sizes
        )

    def look(self, prepared: Sequence[Prepared]) -> list[tuple[Found, Found]]:
        """What the network finds in each image in its two sizes, in pixels of the canvases."""
        parts = [
            prepared[start : start + BATCHES[-1]] for start in range(0, len(prepared), BATCHES[-1])
        ]
        # Both calls of all parts go to the device before the first result is fetched.
        calls = [
            [
                self._begin([p.large for p in part], [p.sizes[0] for p in part]),
                self._begin([p.small for p in part], [p.sizes[1] for p in part]),
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
        scales = (np.tile(np.divide(image.shape[1::-1], size[::-1]), 2) for size in prepared.sizes)
        large, small = (found.scaled(scale) for found, scale in zip(seen, scales, strict=True))
        return best_of(image, large, small, THRESHOLD)

    def _begin(self, canvases: Sequence[Image], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Send canvases of one size to the device; gives its answer, which may not be there yet."""
        side = canvases[0].shape[0]
        count = next(batch for batch in BATCHES if batch >= len(canvases))
        images = np.zeros((count, side, side, 3), np.uint8)
        np.stack(canvases, out=images[: len(canvases)])
        # An image that fills up the batch has no size, hence no face.
        on_canvas = np.zeros((count, 2), np.int32)
        on_canvas[: len(sizes)] = [[round_up(s, STRIDES[-1]) for s in size] for size in sizes]
        return self._graphs[side](tf.constant(images), tf.constant(on_canvas))

    def _graph(self, side: int) -> Any:
        images = tf.TensorSpec((None, side, side, 3), tf.uint8)
        sizes = tf.TensorSpec((None, 2), tf.int32)
        return tf.function(self._found, input_signature=[images, sizes], autograph=False)

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


def _on_canvas(image: Image, side: int) -> NDArray[np.uint8]:
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas
