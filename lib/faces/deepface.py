"""MTCNN as the package `deepface` 0.0.103 runs it: its boxes to the pixel, for several times the work.

That package puts a black frame of half a picture around each picture and has the package `mtcnn` look at
all of it, at full size, for faces from 20 pixels on. `lib.faces.mtcnn` by itself finds nearly the same
faces, but other windows propose them, and so their boxes are apart by some hundredths of their sides
(`benchmarks/vs_deepface.py`). What the published models say of a face changes with its box.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from lib.common.tensorflow_settings import configure, tf
from lib.faces.boxes import Floats, Image
from lib.faces.detections import Detections
from lib.faces.mtcnn import CELL, PYRAMID, STRIDE, Level, Mtcnn, Pixels
from lib.faces.mtcnn_networks import Network, graph, probability

_CANVAS = 4096  # longer side, in pixels, above which decoding may halve: the frame is twice as long
_PIXELS = 1 << 19  # that are averaged, or looked at by PNet, together: bounds the memory
_MIN_FACE_SIZE = 20


def load(threads: int) -> "DeepfaceMtcnn":
    """Load the detector, with `threads` for its computations; its weights come with its package."""
    configure(threads)
    return DeepfaceMtcnn()


class DeepfaceMtcnn(Mtcnn):
    """Finds the faces that `deepface` finds by its backend `mtcnn`."""

    def __init__(self) -> None:
        super().__init__(2 * _CANVAS, _MIN_FACE_SIZE)
        self.canvas = _CANVAS
        self.at_a_time = 1
        self._most = 20_000

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
        return probability(logits.astype(np.float32))

    def _see(self, images: list[Image]) -> Iterator[Iterator[Level]]:
        for image in images:
            yield self._see_levels(image)

    def _see_levels(self, image: Image) -> Iterator[Level]:
        """Each level from the picture itself, by the package's own averaging: both cost time.

        Where pixels differ in the third decimal, other windows win, and boxes differ visibly.
        """
        lit = image.any(axis=(1, 2)), image.any(axis=(0, 2))
        scale, levels = CELL / self.min_face_size, 0
        while min(size := [int(side * scale) for side in image.shape[:2]]) >= CELL:
            rows, columns = map(_averages, image.shape[:2], size)
            down, across = _lit(rows @ lit[0]), _lit(columns @ lit[1])
            seen = self._see_strips(image, rows[down], columns[across])
            yield Level(seen, scale, down.start // STRIDE, across.start // STRIDE)
            levels += 1
            scale = CELL / self.min_face_size * PYRAMID**levels

    def _see_strips(self, image: Image, rows: csr_array, columns: csr_array) -> Floats:
        """What PNet sees of a part of a level, some of its rows at a time."""
        # Of an odd side PNet's pooling makes half a place more, which counts in the package.
        down, across = (
            (side + 1 - CELL) // STRIDE + 1 for side in (rows.shape[0], columns.shape[0])
        )
        seen = np.zeros((max(0, down), max(0, across), 5), np.float32)
        if not seen.size:
            return seen
        step = max(1, _PIXELS // columns.shape[0] // STRIDE)
        for start in range(0, down, step):
            part = rows[STRIDE * start : STRIDE * (start + step - 1) + CELL]
            level = _averaged(image, part, columns)
            seen[start : start + step] = self._pnet(tf.constant(level[np.newaxis])).numpy()[0]
        return seen


def _averages(side: int, size: int) -> csr_array:
    """The weights (size, side) by which `side` pixels become `size`, as the package's resizing has them.

    Each pixel is the mean of what lies under it, with its borders in the float32 that
    `tf.image.resize` reckons them in by the method `AREA`: far from the origin that is seen.
    """
    width = np.float32(side) / np.float32(size)
    borders = np.arange(size + 1).astype(np.float32) * width
    first, last = np.floor(borders[:-1]).astype(int), np.ceil(borders[1:]).astype(int)
    counts = last - first
    to = np.repeat(np.arange(size), counts)
    of = np.arange(len(to)) - np.repeat(np.cumsum(counts) - counts, counts) + first[to]
    begin, end, pixel = borders[to], borders[to + 1], of.astype(np.float32)
    weights = np.minimum(np.minimum(pixel + 1, end) - np.maximum(pixel, begin), width) / width
    return csr_array((weights, (to, np.minimum(of, side - 1))), shape=(size, side))


def _averaged(image: Image, rows: csr_array, columns: csr_array) -> Pixels:
    """The part of a level that has these rows and columns."""
    width, height = (np.ptp(m.indices) + 1 for m in (columns, rows))
    step = max(1, int(rows.shape[0] * _PIXELS // (width * height)))
    parts = [
        _averaged_at_once(image, rows[start : start + step], columns)
        for start in range(0, rows.shape[0], step)
    ]
    return np.concatenate(parts)


def _averaged_at_once(image: Image, rows: csr_array, columns: csr_array) -> Pixels:
    down, across = (slice(m.indices.min(), m.indices.max() + 1) for m in (rows, columns))
    under = image[down, across].astype(np.float32)
    lines = (rows[:, down] @ under.reshape(len(under), -1)).reshape(-1, *under.shape[1:])
    turned = lines.swapaxes(0, 1)
    level = columns[:, across] @ turned.reshape(len(turned), -1)
    return level.reshape(-1, *lines.shape[::2]).swapaxes(0, 1)


def _lit(lines: ArrayLike) -> slice:
    """From the first window that sees one of the lines that are not black, to the last; even."""
    lit = np.flatnonzero(lines)
    if not len(lit):
        return slice(0, 0)
    start = max(0, lit[0] - CELL) // STRIDE * STRIDE
    stop = start + -(-(lit[-1] + CELL - start) // STRIDE) * STRIDE
    return slice(start, min(stop, np.size(lines)))
