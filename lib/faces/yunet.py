"""YuNet: a fast detector of one network, computed by ONNX Runtime.

Wu, Peng and Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector". The weights are those of the
OpenCV model zoo, under the MIT licence; see `weights/`. They were trained with faces of 10 to 300
pixels, so each image is looked at in two sizes: a large one, and a small one for faces that fill it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.common.onnx import session
from lib.faces.boxes import Floats, Image, inside, ratio, round_up, shrink_fast
from lib.faces.detections import Detections

WEIGHTS = Path(__file__).parent / "weights" / "face_detection_yunet_2026may.onnx"
CANVAS, THRESHOLD = 640, 0.6
"""Longer side, in pixels, to which larger images are shrunk; the score, 0..1, that a face must reach."""
STRIDES = (8, 16, 32)
"""Pixels between the places that each of the network's three outputs looks at."""
SMALLER = 4
"""Times by which the small size is smaller."""
NEAR = 0.3
"""Share of an image's longer side from which a face of the small size counts: smaller ones are seen
better in the large size, and what is only seen here are blurred faces of the background."""
_OVERLAP = 0.3  # intersection over union above which the weaker of two boxes is dropped
_MOST = 5000  # boxes that are compared with each other: bounds the time that noise takes


class Found(NamedTuple):
    """What the network found, boxes that overlap included, in pixels of what it was shown.

    Attributes:
        boxes: float32 (n, 4): the upper left and the lower right corner, x, y, x, y.
        scores: float32 (n,).
        landmarks: float32 (n, 5, 2).
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def at_least(self, side: float) -> "Found":
        """Those whose longer side has as many pixels."""
        some = (self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1, initial=0) >= side
        return Found(*(array[some] for array in self))

    def scaled(self, scale: Floats) -> "Found":
        """The same in pixels of the image; `scale` takes x, y, x, y there."""
        factor = scale.astype(np.float32)
        return Found(self.boxes * factor, self.scores, self.landmarks * factor[:2])


def best_of(image: Image, large: Found, small: Found, threshold: float) -> Detections:
    """The faces of an image: of those found in its two sizes, in pixels of the image, the best ones."""
    found = large, small.at_least(NEAR * max(image.shape))
    boxes, scores, landmarks = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    corner, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    # Best first.
    best = np.asarray(
        cv2.dnn.NMSBoxes(
            np.concatenate([corner, extent], axis=1).tolist(),
            scores.tolist(), threshold, _OVERLAP, top_k=_MOST,
        ), np.intp
    ).reshape(-1)  # fmt: skip
    return inside(image, boxes[best], scores[best], landmarks[best])


def load(threads: int) -> "Yunet":
    """Load the detector, with `threads` for its computations."""
    cv2.setNumThreads(threads)
    return Yunet(threads)


class Yunet:
    """Finds faces with YuNet. One instance serves one thread of one process.

    Args:
        threads: for the network.
        canvas: longer side, in pixels, to which larger images are shrunk.
        threshold: the score, 0..1, that a face must reach.
    """

    def __init__(
        self, threads: int = 1, canvas: int = CANVAS, threshold: float = THRESHOLD
    ) -> None:
        self.canvas = canvas
        self.at_a_time = 1
        self._threshold = threshold
        self._network = session(WEIGHTS.read_bytes(), threads)

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Find the faces of a batch: see `lib.faces.detections.Detector.detect`."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Detections:
        large = shrink_fast(image, self.canvas)
        small = shrink_fast(large, self.canvas // SMALLER)
        found = self._look(large).scaled(ratio(image, large))
        nearer = self._look(small).scaled(ratio(image, small))
        return best_of(image, found, nearer, self._threshold)

    def _look(self, image: Image) -> Found:
        """All that the network finds in an image."""
        height, width = (round_up(side, STRIDES[-1]) for side in image.shape[:2])
        blob = np.zeros((1, 3, height, width), np.float32)
        blob[:, :, : image.shape[0], : image.shape[1]] = cv2.dnn.blobFromImage(image, swapRB=True)
        outputs = self._network.run(None, {"input": blob})
        found = []
        for level, stride in enumerate(STRIDES):
            classes, objects, boxes, landmarks = (a[0] for a in outputs[level :: len(STRIDES)])
            scores = np.sqrt(classes[:, 0].clip(0, 1) * objects[:, 0].clip(0, 1))
            some = np.nonzero(scores >= self._threshold)[0]
            places = np.stack([some % (width // stride), some // (width // stride)], axis=1)
            centre = (places + boxes[some, :2]) * stride
            half = np.exp(boxes[some, 2:]) * stride / 2
            points = (places[:, np.newaxis] + landmarks[some].reshape(-1, 5, 2)) * stride
            found.append(
                Found(
                    np.concatenate([centre - half, centre + half], axis=1).astype(np.float32),
                    scores[some],
                    points.astype(np.float32),
                )
            )
        return Found(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))
