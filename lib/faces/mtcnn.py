"""MTCNN: faces and five landmarks from three small networks, each stricter than the one before.

The method is that of Zhang, Zhang, Li and Qiao 2016, "Joint Face Detection and Alignment Using
Multitask Cascaded Convolutional Networks". The weights, the thresholds and the conventions of
boxes are those of the PyPI package `mtcnn` 1.0.0; the way through them is another:

1. Each image is shrunk to a pyramid of levels, and the levels of the whole batch are packed side by
   side on pages of one shape. PNet looks at one page after the other and proposes boxes.
2. RNet scores the proposals of the whole batch, a fixed number at a time, and so does
3. ONet with those that are left, which also places the landmarks.

So each network is one TensorFlow graph for one shape, whatever the sizes of the images are, and
what is found in an image does not depend on the others.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.common.tensorflow_settings import configure, tf
from lib.faces.boxes import (
    Floats,
    Image,
    adjust,
    inside,
    ratio,
    round_up,
    shrink,
    size,
    square,
    suppress,
)
from lib.faces.detections import Detections
from lib.faces.mtcnn_networks import BoxNetwork, Network, graph, onet, pnet, probability, rnet

Pixels = NDArray[np.float32]

CELL = 12  # pixels: the side of what PNet sees of one place
STRIDE = 2  # pixels between the places that PNet looks at
PYRAMID = 0.709  # side of a level relative to the one before: about half the area


def load(threads: int) -> "Mtcnn":
    """Load the detector, with `threads` for its computations; its weights come with its package."""
    configure(threads)
    return Mtcnn()


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
        side = round_up(canvas * CELL // min_face_size, STRIDE)
        self._page = (side, 2 * side)
        self._pnet = self._graph_of_pnet(pnet)
        self._rnet = BoxNetwork(rnet, side=24, batch=64)
        self._onet = BoxNetwork(onet, side=48, batch=8)

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Find the faces of a batch: see `lib.faces.detections.Detector.detect`."""
        shrunk = [shrink(image, self._longest) for image in images]
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
            proposed.append(square(boxes[self._suppress(boxes, scores, 0.7)]))
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
        return suppress(boxes, scores, threshold, self._most, of_smaller)

    def _rank(self, logits: Floats) -> Floats:
        """What decides which of two boxes stays, the higher one."""
        return logits

    def _refine(self, images: list[Image], proposed: list[Floats]) -> list[Floats]:
        """RNet's boxes (n, 4) for each image, square again."""
        refined = []
        for boxes, seen in zip(proposed, self._rnet(images, proposed), strict=True):
            passed = seen[:, 4] > self._least[1]
            boxes, seen = adjust(boxes[passed], seen[passed]), seen[passed]
            refined.append(square(boxes[self._suppress(boxes, self._rank(seen[:, 4]), 0.7)]))
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
            boxes = adjust(boxes, seen)
            best = self._suppress(boxes, self._rank(seen[:, 4]), 0.7, of_smaller=True)
            scale = ratio(image, small)
            faces.append(
                inside(
                    image,
                    boxes[best] * scale,
                    probability(seen[best, 4]),
                    landmarks[best] * scale[:2],
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
        height, width = (round_up(side, STRIDE) for side in levels[number].shape[:2])
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


def _landmarks(boxes: Floats, seen: Floats) -> Floats:
    """Where ONet saw the five landmarks (n, 5, 2)."""
    relative = seen[:, 5:].reshape(-1, 2, 5).swapaxes(1, 2)
    return boxes[:, np.newaxis, :2] + relative * size(boxes)[:, np.newaxis] - 1
