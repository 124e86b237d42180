"""YuNet: a fast detector of one network, run by OpenCV from a file of weights.

Wu, Peng and Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector".
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.faces.detections import Detections

_NMS = 0.3  # overlap of two boxes, intersection over union, above which the weaker one is dropped
_MOST = 5000  # boxes that go into that comparison


def load(threads: int, weights: str | None) -> "Yunet":
    """Load the detector from its file of weights, with `threads` for its computations."""
    assert weights is not None
    cv2.setNumThreads(threads)
    return Yunet(weights)


class Yunet:
    """Finds faces with YuNet. One instance serves one thread of one process.

    How many threads the work takes is for the caller to set with `cv2.setNumThreads`.

    Args:
        weights: the ONNX file, such as `face_detection_yunet_2026may.onnx` of the OpenCV model zoo.
        canvas: longer side, in pixels, to which larger images are shrunk first.
        threshold: the score, 0..1, that a face must reach.

    Raises:
        UserError: the file is missing, or OpenCV cannot read it.
    """

    def __init__(self, weights: Path | str, canvas: int = 640, threshold: float = 0.6) -> None:
        self.canvas = canvas
        self.at_a_time = 1
        if not Path(weights).is_file():
            raise UserError(
                f"no YuNet weights at {str(weights)!r}: give the path of its .onnx file"
            )
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(weights), "", (canvas, canvas), threshold, _NMS, _MOST
            )
        except cv2.error:
            raise UserError(
                f"cannot read YuNet weights from {str(weights)!r}: fetch the .onnx file anew"
            ) from None

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Find the faces of a batch: see `lib.faces.detections.Detector.detect`."""
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Detections:
        height, width = image.shape[:2]
        scale = min(1, self.canvas / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if scale < 1:
            bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
        self._network.setInputSize(size)
        _, found = self._network.detect(bgr)
        if found is None:
            return Detections.none()
        # Columns: x, y, width, height, x and y of five landmarks in our order, score.
        found = np.asarray(found, np.float32)
        found = found[np.argsort(-found[:, 14], kind="stable")]
        ratio = np.divide((width, height), size).astype(np.float32)
        upper = (found[:, 0:2] * ratio).clip(0, (width, height))
        lower = ((found[:, 0:2] + found[:, 2:4]) * ratio).clip(0, (width, height))
        some = (lower > upper).all(axis=1)
        boxes = np.concatenate([upper, lower - upper], axis=1).astype(np.float32)
        landmarks = found[:, 4:14].reshape(-1, 5, 2) * ratio
        return Detections(boxes[some], found[some, 14].clip(0, 1), landmarks[some])
