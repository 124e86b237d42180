"""MTCNN as the package `deepface` 0.0.103 runs it: its boxes to the pixel, for several times the work.

That package puts a black frame of half a picture around each picture and has the package `mtcnn` look at
all of it, at full size, for faces from 20 pixels on. `lib.faces.mtcnn` by itself finds the same faces,
but other windows propose them, and so their boxes are apart by some hundredths of their sides
(`benchmarks/vs_deepface.py`). What the published models say of a face changes with its box.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from lib.faces.detections import Detections
from lib.faces.mtcnn import (
    CELL,
    PYRAMID,
    STRIDE,
    Floats,
    Image,
    Mtcnn,
    Network,
    Pixels,
    graph,
    probability,
)

_CANVAS = 4096  # longer side, in pixels, above which decoding may halve: a pixel takes 100 bytes
_MIN_FACE_SIZE = 20


class DeepfaceMtcnn(Mtcnn):
    """Finds the faces that `deepface` finds by its backend `mtcnn`."""

    def __init__(self) -> None:
        super().__init__(2 * _CANVAS, _MIN_FACE_SIZE)
        self.canvas = _CANVAS

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Find the faces of a batch: see `lib.faces.detections.Detector.detect`."""
        return [self._detect_in_frame(image) for image in images]

    def _detect_in_frame(self, image: Image) -> Detections:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        framed = cv2.copyMakeBorder(image, height, height, width, width, cv2.BORDER_CONSTANT)
        (faces,) = super().detect([np.asarray(framed, np.uint8)])
        shift = np.array([width, height], np.float32)
        boxes = faces.boxes - np.pad(shift, (0, 2))
        # What was seen in the frame alone is no face of the picture.
        there = ((boxes[:, :2] < image.shape[1::-1]) & (boxes[:, :2] + boxes[:, 2:] > 0)).all(
            axis=1
        )
        return Detections(boxes[there], faces.scores[there], (faces.landmarks - shift)[there])

    def _graph_of_pnet(self, pnet: Network) -> Any:
        return graph(pnet, (1, None, None, 3))

    def _rank(self, logits: Floats) -> Floats:
        """Probabilities no finer than float32 has them, as in the package.

        Many boxes of a large face then have the probability 1 alike, and NumPy's sorting, which the
        package uses in the same way, decides between them.
        """
        return probability(logits.astype(np.float64)).astype(np.float32).astype(np.float64)

    def _pyramid(self, image: Image) -> list[tuple[Pixels, float]]:
        """Each level from the picture itself, by the package's own averaging: both cost time.

        Where pixels differ in the third decimal, other windows win, and boxes differ visibly.
        """
        whole = tf.constant(image[np.newaxis], tf.float32)
        scale = CELL / self.min_face_size
        levels = []
        while min(size := [int(side * scale) for side in image.shape[:2]]) >= CELL:
            level = tf.image.resize(whole, size, tf.image.ResizeMethod.AREA)
            levels.append((level.numpy()[0], scale))
            scale = CELL / self.min_face_size * PYRAMID ** len(levels)
        return levels

    def _look(self, levels: Sequence[Pixels]) -> Iterator[Floats]:
        """What PNet sees of each level; where that is nothing but black, no face."""
        for level in levels:
            # Of an odd side PNet's pooling makes half a place more, which counts in the package.
            places = [(side + 1 - CELL) // STRIDE + 1 for side in level.shape[:2]]
            seen = np.full((*places, 5), -np.inf, np.float32)
            rows, columns = (_lit(level.any(axis=(other, 2))) for other in (1, 0))
            part = level[rows, columns]
            if min(part.shape[:2]) >= CELL:
                found = self._pnet(tf.constant(part[np.newaxis])).numpy()[0]
                top, left = rows.start // STRIDE, columns.start // STRIDE
                seen[top : top + found.shape[0], left : left + found.shape[1]] = found
            yield seen


def _lit(lines: ArrayLike) -> slice:
    """From the first window that sees one of the lines that are not black, to the last; even."""
    lit = np.flatnonzero(lines)
    if not len(lit):
        return slice(0, 0)
    start = max(0, lit[0] - CELL) // STRIDE * STRIDE
    return slice(start, start + -(-(lit[-1] + CELL - start) // STRIDE) * STRIDE)
