"""What a face detector returns, and what a detector is."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """The faces of one image, in pixels of the image that the detector was given, best score first.

    Attributes:
        boxes: (n, 4) float32: x, y of the upper left corner, width, height; some detectors let them
            reach beyond the image.
        scores: (n,) float32 in 0..1.
        landmarks: (n, 5, 2) float32, x and y of the eye on the left of the picture, the eye on its
            right, the tip of the nose, the corner of the mouth on the left, and the one on the right.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls) -> "Detections":
        """No face at all."""
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros((0,), np.float32),
            np.zeros((0, 5, 2), np.float32),
        )


class Detector(Protocol):
    """Finds faces. One instance serves one thread of one process."""

    canvas: int
    """Longer side, in pixels, above which an image is shrunk before detection: more is not looked at."""
    at_a_time: int
    """How many images it is best given at once: more than one where that is faster."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Find the faces of a batch.

        Args:
            images: RGB uint8 arrays (height, width, 3), each of its own size.

        Returns:
            One `Detections` for each image, in order, in pixels of that image.
        """
        ...


class BatchDetector(Protocol):
    """Finds faces in three steps, of which only the second one takes a device, and whole batches."""

    canvas: int
    """As of `Detector`."""

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """What is looked at of an image (height, width, 3), RGB; threads may call it side by side."""
        ...

    def look(self, prepared: Sequence[Any]) -> list[Any]:
        """What is seen of each image of a batch; threads may call it side by side."""
        ...

    def finish(self, prepared: Any, seen: Any) -> Detections:
        """The faces of one image, as of `Detector.detect`; threads may call it side by side."""
        ...


class InBatches:
    """Any detector as a `BatchDetector`: it takes the images as they are, one batch after the other."""

    def __init__(self, detector: Detector) -> None:
        self.canvas = detector.canvas
        self._detector = detector
        self._lock = Lock()

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image."""
        return image

    def look(self, prepared: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """The faces of each image."""
        step = self._detector.at_a_time
        with self._lock:
            return [
                faces
                for start in range(0, len(prepared), step)
                for faces in self._detector.detect(prepared[start : start + step])
            ]

    def finish(self, prepared: NDArray[np.uint8], seen: Detections) -> Detections:
        """The faces that were seen."""
        return seen
