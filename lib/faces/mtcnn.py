"""MTCNN: faces and five landmarks from three small networks, each stricter than the one before.

The method is that of Zhang, Zhang, Li and Qiao 2016, "Joint Face Detection and Alignment Using
Multitask Cascaded Convolutional Networks". The weights, the thresholds and the conventions of
boxes are those of the PyPI package `mtcnn` 1.0.0; the way through them is another:

1. Each image is shrunk to a pyramid of levels, and the levels of the whole batch are packed side by
   side on pages of one shape. PNet looks at one page after the other and proposes boxes.
2. RNet judges the proposals of the whole batch, a fixed number at a time, and so does
3. ONet with those that are left, which also places the landmarks.

So each network is one TensorFlow graph for one shape, whatever the sizes of the images are, and
what is found in an image does not depend on the others. The graphs are not compiled with XLA: on a
CPU that was measured to be slower, by a quarter (ONet) to four fifths (PNet).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import distribution
from typing import Any, NamedTuple

import cv2
import joblib
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.faces.detections import Detections

Image = NDArray[np.uint8]
Pixels = NDArray[np.float32]
Floats = NDArray[np.floating]
Tensor = Any
Network = Callable[[Tensor], Tensor]

CELL = 12  # pixels: the side of what PNet sees of one place
STRIDE = 2  # pixels between the places that PNet looks at
PYRAMID = 0.709  # side of a level relative to the one before: about half the area
_GREY = 127.5  # the pixel value that is 0 to the networks
_COMPARED = 500  # boxes that are compared with all others at once: bounds the memory


class Mtcnn:
    """Finds faces with MTCNN. One instance serves one thread of one process.

    How many threads the work takes is for the caller to set, before the first operation, with
    `tf.config.threading` and `cv2.setNumThreads`.

    Args:
        canvas: longer side, in pixels, to which larger images are shrunk first.
        min_face_size: side, in pixels of the shrunk image, of the smallest faces looked for. The time
            goes with the square of its inverse. Of 40 photographs at 640 pixels, with 44 faces of
            mostly 150 to 300 pixels, 36 loses none that 20 finds; of the same at 120 pixels, with 46
            faces of mostly 26 to 61, 24 loses two, 36 four, and 48 seven.
        thresholds: the probabilities, between 0 and 1, that a box must exceed in PNet, RNet, ONet.

    Raises:
        ValueError: where `min_face_size` is below 12 pixels, or above the canvas.
    """

    def __init__(
        self,
        canvas: int = 640,
        min_face_size: int = 36,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8),
    ) -> None:
        if not CELL <= min_face_size <= canvas:
            raise ValueError(f"min_face_size is {min_face_size}, not in {CELL}..{canvas} pixels")
        self.canvas = self._longest = canvas
        self.at_a_time = 16  # enough to fill the graphs, and few enough to hold decoded
        self.min_face_size = min_face_size
        self._most = (
            2000  # boxes that are compared with each other: bounds the time that noise takes
        )
        self._least = [float(np.log(p / (1 - p))) for p in thresholds]  # as logits
        side = _round_up(canvas * CELL // min_face_size, STRIDE)
        self._page = (side, 2 * side)
        self._pnet = self._graph_of_pnet(_pnet)
        self._rnet = _Judge(_rnet, side=24, batch=64)
        self._onet = _Judge(_onet, side=48, batch=8)

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Find the faces of a batch: see `lib.faces.detections.Detector.detect`."""
        shrunk = [_shrink(image, self._longest) for image in images]
        boxes = self._propose(shrunk)
        boxes = self._refine(shrunk, boxes)
        return self._finish(shrunk, boxes, images)

    def _propose(self, images: list[Image]) -> list[Floats]:
        """PNet's boxes (n, 4) for each image: squares, given by two corners x, y, x, y."""
        proposed = []
        for levels in self._see(images):
            boxes, scores = np.zeros((0, 4)), np.zeros(0)
            for level in levels:
                found, found_scores = self._windows(level)
                boxes = np.concatenate([boxes, found / level.scale])
                scores = np.concatenate([scores, found_scores])
            proposed.append(_square(boxes[self._suppress(boxes, scores, 0.7)]))
        return proposed

    def _graph_of_pnet(self, pnet: Network) -> Any:
        return graph(pnet, (1, *self._page, 3))

    def _see(self, images: list[Image]) -> Iterator[Iterable["Level"]]:
        """Of each image what PNet sees of its levels."""
        pyramids = [_pyramid(image, CELL / self.min_face_size) for image in images]
        seen = self._look([level for pyramid in pyramids for level, _ in pyramid])
        for pyramid in pyramids:
            yield [Level(next(seen), scale) for _, scale in pyramid]

    def _look(self, levels: Sequence[Pixels]) -> Iterator[Floats]:
        """What PNet sees of each level, from packed pages."""
        count, corners = _pack(levels, self._page)
        page = np.zeros((1, *self._page, 3), np.float32)  # one for all: it stays in the cache
        maps = []
        for number in range(count):
            for level, (its_page, row, column) in zip(levels, corners, strict=True):
                if its_page == number:
                    page[0, row : row + len(level), column : column + level.shape[1]] = level
            maps.append(self._pnet(tf.constant(page)).numpy()[0])
        for level, corner in zip(levels, corners, strict=True):
            yield _cut(maps, corner, level)

    def _windows(self, level: "Level") -> tuple[Floats, Floats]:
        """Boxes (n, 4) in pixels of a level, and scores (n,), out of what PNet saw there."""
        rows, columns = np.nonzero(level.seen[..., 4] > self._least[0])
        seen = level.seen[rows, columns]
        places = STRIDE * np.stack([columns + level.left, rows + level.top], axis=1)
        # From the first pixel to the last, counted from 1, as the weights were trained.
        boxes = np.concatenate([places + 1, places + CELL], axis=1) + (CELL - 1) * seen[:, :4]
        scores = self._rank(seen[:, 4])
        best = self._suppress(boxes, scores, 0.5)
        return boxes[best], scores[best]

    def _suppress(
        self, boxes: Floats, scores: Floats, threshold: float, of_smaller: bool = False
    ) -> NDArray[np.intp]:
        return _suppress(boxes, scores, threshold, self._most, of_smaller)

    def _rank(self, logits: Floats) -> Floats:
        """What decides which of two boxes stays, the higher one."""
        return logits

    def _refine(self, images: list[Image], proposed: list[Floats]) -> list[Floats]:
        """RNet's boxes (n, 4) for each image, square again."""
        refined = []
        for boxes, seen in zip(proposed, self._rnet(images, proposed), strict=True):
            passed = seen[:, 4] > self._least[1]
            boxes, seen = _adjust(boxes[passed], seen[passed]), seen[passed]
            refined.append(_square(boxes[self._suppress(boxes, self._rank(seen[:, 4]), 0.7)]))
        return refined

    def _finish(
        self, shrunk: list[Image], refined: list[Floats], images: Sequence[Image]
    ) -> list[Detections]:
        """ONet's faces, in pixels of the images as they came."""
        faces = []
        seen_of_each = self._onet(shrunk, refined)
        for small, boxes, seen, image in zip(shrunk, refined, seen_of_each, images, strict=True):
            passed = seen[:, 4] > self._least[2]
            boxes, seen = boxes[passed], seen[passed]
            landmarks = _landmarks(boxes, seen)
            boxes = _adjust(boxes, seen)
            best = self._suppress(boxes, self._rank(seen[:, 4]), 0.7, of_smaller=True)
            ratio = _ratio(image, small)
            faces.append(
                _inside(
                    image,
                    boxes[best] * ratio,
                    probability(seen[best, 4]),
                    landmarks[best] * ratio[:2],
                )
            )
        return faces


class Level(NamedTuple):
    """What PNet sees of an image at one scale.

    Attributes:
        seen: (rows, columns, 5), for each place that it looked at.
        scale: of the level: its side relative to the image's.
        top: number of the first row of places.
        left: number of the first column of places.
    """

    seen: Floats
    scale: float
    top: int = 0
    left: int = 0


class _Judge:
    """Looks at the inside of boxes with RNet or ONet, a fixed number of boxes at a time."""

    def __init__(self, network: Network, side: int, batch: int) -> None:
        self._side = side
        self._batch = batch
        self._graph = graph(network, (batch, side, side, 3))

    def __call__(self, images: list[Image], boxes: list[Floats]) -> list[Floats]:
        """For the boxes (n, 4) of each image what the network says of them, (n, columns)."""
        padded = _round_up(sum(map(len, boxes)), self._batch)
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


# The networks. Along the last axis each gives the offsets of the box's corners, x, y, x, y, in
# units of its size, and the logit of a face; ONet adds the x, then the y of five landmarks. What was
# trained as a softmax of two is one logit here, their difference: on a page of PNet's, TensorFlow's
# softmax takes a third of the time of all convolutions.


def _pnet(page: Tensor) -> Tensor:
    w = _weights("pnet")
    x = _conv(page, w, pool=2)
    x = _conv(x, w)
    x = _conv(x, w)
    offsets_kernel, offsets_bias, logits_kernel, logits_bias = w
    kernel = np.concatenate([offsets_kernel, np.diff(logits_kernel)], axis=-1)
    return tf.nn.conv2d(x, kernel, 1, "VALID") + np.concatenate(
        [offsets_bias, np.diff(logits_bias)]
    )


def _rnet(crops: Tensor) -> Tensor:
    w = _weights("rnet")
    x = _conv(crops, w, pool=3)
    x = _conv(x, w, pool=3, padding="VALID")
    x = _conv(x, w)
    x = _prelu(_dense(_flatten(x), w), next(w))
    offsets, logits = _dense(x, w), _dense(x, w)
    return tf.concat([offsets, logits[:, 1:] - logits[:, :1]], axis=-1)


def _onet(crops: Tensor) -> Tensor:
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
    return iter([kernel, bias - _GREY * kernel.sum(axis=(0, 1, 2)), *others])


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


# The pictures.


def _shrink(image: Image, canvas: int) -> Image:
    """The image with its longer side at most `canvas` pixels long."""
    height, width = image.shape[:2]
    scale = canvas / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _pyramid(image: Image, scale: float) -> list[tuple[Pixels, float]]:
    """The image at `scale`, then ever smaller as long as PNet sees something, with the scales."""
    whole = image.astype(np.float32)  # rounding every level to uint8 would move the probabilities
    height, width = image.shape[:2]
    levels: list[tuple[Pixels, float]] = []
    while min(int(height * scale), int(width * scale)) >= CELL:
        # From the level with four times the pixels: three times as fast as from the image.
        source = levels[-2][0] if len(levels) > 1 else whole
        size = (int(width * scale), int(height * scale))
        level = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
        levels.append((np.asarray(level, np.float32), scale))
        scale *= PYRAMID
    return levels


def _pack(
    levels: Sequence[Pixels], page_shape: tuple[int, int]
) -> tuple[int, list[tuple[int, int, int]]]:
    """Find each level a place on pages, the tallest first, each in the smallest gap that holds it.

    Returns:
        How many pages it takes, and for each level its page and the row and the column of its upper
        left corner there, which are even so that PNet's places on the page are its places in the level.
    """
    pages = 0
    gaps: list[tuple[int, int, int, int, int]] = []  # page, row, column, height, width
    corners = [(0, 0, 0)] * len(levels)
    for number in sorted(range(len(levels)), key=lambda number: -len(levels[number])):
        height, width = (_round_up(side, STRIDE) for side in levels[number].shape[:2])
        fitting = [gap for gap in gaps if gap[3] >= height and gap[4] >= width]
        if fitting:
            gap = min(fitting, key=lambda gap: gap[3] * gap[4])
            gaps.remove(gap)
        else:
            gap = (pages, 0, 0, *page_shape)
            pages += 1
        page, row, column, gap_height, gap_width = gap
        gaps.append((page, row, column + width, height, gap_width - width))
        gaps.append((page, row + height, column, gap_height - height, gap_width))
        corners[number] = (page, row, column)
    return pages, corners


def _cut(maps: list[Floats], corner: tuple[int, int, int], level: Pixels) -> Floats:
    """What PNet saw of the places that lie inside one level, (rows, columns, 5)."""
    page, row, column = corner
    height, width = level.shape[:2]
    rows = slice(row // STRIDE, (row + height - CELL) // STRIDE + 1)
    columns = slice(column // STRIDE, (column + width - CELL) // STRIDE + 1)
    return maps[page][rows, columns]


def _crop(image: Image, boxes: Floats, side: int) -> NDArray[np.float32]:
    """The inside of the boxes, (n, side, side, 3), 0..255, and grey beyond the image."""
    height, width = image.shape[:2]
    corners = boxes[:, [1, 0, 3, 2]] / [height, width, height, width]
    crops = tf.image.crop_and_resize(
        image[np.newaxis],
        corners.astype(np.float32),
        np.zeros(len(boxes), np.int32),
        (side, side),
        extrapolation_value=_GREY,
    )
    return crops.numpy()


# Boxes: arrays (n, 4) of the upper left and the lower right corner, x, y, x, y.


def _suppress(
    boxes: Floats, scores: Floats, threshold: float, most: int, of_smaller: bool = False
) -> NDArray[np.intp]:
    """Which boxes to keep, best first: those that no box of a better score overlaps.

    Unlike in the usual, greedy suppression, a box that is dropped itself still drops others.

    Args:
        boxes: (n, 4).
        scores: (n,).
        threshold: the overlap that is still allowed, 0..1.
        most: how many are looked at, best first.
        of_smaller: measure the intersection against the smaller of two boxes, not their union.
    """
    order = np.argsort(scores)[::-1][:most]
    x1, y1, x2, y2 = boxes[order].astype(np.float32).T
    area = (x2 - x1) * (y2 - y1)
    dropped = np.zeros(len(order), bool)
    for start in range(0, len(order), _COMPARED):
        some, rest = slice(start, start + _COMPARED), slice(start, None)
        width = np.minimum.outer(x2[some], x2[rest]) - np.maximum.outer(x1[some], x1[rest])
        height = np.minimum.outer(y2[some], y2[rest]) - np.maximum.outer(y1[some], y1[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        if of_smaller:
            whole = np.minimum.outer(area[some], area[rest])
        else:
            whole = np.add.outer(area[some], area[rest]) - shared
        dropped[rest] |= np.triu(shared > threshold * whole, k=1).any(axis=0)
    return order[~dropped]


def _size(boxes: Floats) -> Floats:
    """Width and height (n, 2) as the networks were taught them: with both border pixels."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def _adjust(boxes: Floats, seen: Floats) -> Floats:
    """The boxes with their corners moved by the offsets that RNet or ONet saw."""
    return boxes + seen[:, :4] * np.tile(_size(boxes), 2)


def _square(boxes: Floats) -> Floats:
    """Squares around the same centres, with the longer side of the boxes."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def probability(logits: Floats) -> Floats:
    """Of a face, 0..1."""
    return 1 / (1 + np.exp(-logits))


def _landmarks(boxes: Floats, seen: Floats) -> Floats:
    """Where ONet saw the five landmarks (n, 5, 2)."""
    relative = seen[:, 5:].reshape(-1, 2, 5).swapaxes(1, 2)
    return boxes[:, np.newaxis, :2] + relative * _size(boxes)[:, np.newaxis] - 1


def _ratio(image: Image, shrunk: Image) -> Floats:
    """What takes x, y, x, y in the shrunk image to the image."""
    return np.tile(np.divide(image.shape[1::-1], shrunk.shape[1::-1]), 2)


def _inside(image: Image, boxes: Floats, scores: Floats, landmarks: Floats) -> Detections:
    """The faces with their boxes cut off at the border of the image."""
    upper, lower = np.split(boxes.clip(0, np.tile(image.shape[1::-1], 2)), 2, axis=1)
    some = (lower > upper).all(axis=1)
    boxes = np.concatenate([upper, lower - upper], axis=1)
    return Detections(*(a[some].astype(np.float32) for a in (boxes, scores, landmarks)))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
