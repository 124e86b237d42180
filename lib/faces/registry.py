"""The detectors by name. A new detector is one file with a function `load`, and one line here."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lib.common.errors import UserError
from lib.faces.detections import BatchDetector, Detector, InBatches

WORKER_GIB = 1.0
"""Memory of a worker in GiB, besides the weights of its models, with the largest pictures."""
DEFAULT_DETECTOR, NO_DETECTOR = "yunet", "none"


@dataclass(frozen=True)
class DetectorEntry:
    """What is known of a detector before it is imported.

    Attributes:
        help: for the command line.
        module: has `load(threads) -> Detector`; None: the images are face crops already.
        weights: file of its weights, beside its module; None: they come with another package.
        worker_gib: memory of a worker that uses it, as `WORKER_GIB`.
        batch_module: has `load(threads) -> BatchDetector`; None: `module` does for batches, too.
    """

    help: str
    module: str | None
    weights: str | None = None
    worker_gib: float = WORKER_GIB
    batch_module: str | None = None


DETECTORS = {
    DEFAULT_DETECTOR: DetectorEntry(
        "YuNet, a network of one pass",
        "lib.faces.yunet",
        "face_detection_yunet_2026may.onnx",
        batch_module="lib.faces.yunet_on_gpu",
    ),
    "mtcnn": DetectorEntry("MTCNN, with the weights of its PyPI package", "lib.faces.mtcnn"),
    "deepface": DetectorEntry(
        "MTCNN as the package deepface runs it: its boxes, for more work",
        "lib.faces.deepface",
        worker_gib=2.0,
    ),
    NO_DETECTOR: DetectorEntry("the images are face crops already", None),
}
if TYPE_CHECKING:
    DetectorName = str
else:
    DetectorName = Literal[tuple(DETECTORS)]

DETECTOR_HELP = "Face detector. " + "; ".join(f"{n}: {e.help}" for n, e in DETECTORS.items()) + "."


@dataclass(frozen=True)
class DetectorSpec:
    """Which detector to use; small, so that it travels to the workers.

    Attributes:
        name: one of `DETECTORS`.

    Raises:
        UserError: there is no such detector.
    """

    name: DetectorName = DEFAULT_DETECTOR

    def __post_init__(self) -> None:
        if self.name not in DETECTORS:
            raise UserError(
                f"--detector cannot be {self.name!r}; choose from {', '.join(DETECTORS)}"
            )

    @property
    def entry(self) -> DetectorEntry:
        """What is known of it."""
        return DETECTORS[self.name]

    def digest(self) -> str:
        """What decides which faces are found: the name, and the sha256 of its file of weights."""
        if self.entry.weights is None:
            return self.name
        weights = Path(__file__).parent / "weights" / self.entry.weights
        return f"{self.name}@{hashlib.sha256(weights.read_bytes()).hexdigest()}"

    def load(self, threads: int) -> Detector | None:
        """Load the detector, with `threads` for its computations; None for face crops."""
        if self.entry.module is None:
            return None
        load: Callable[[int], Detector] = import_module(self.entry.module).load
        return load(threads)

    def load_for_batches(self, threads: int) -> BatchDetector | None:
        """The same for a worker that gives it whole batches, on its GPU where it has one."""
        if self.entry.batch_module is None:
            detector = self.load(threads)
            return None if detector is None else InBatches(detector)
        load: Callable[[int], BatchDetector] = import_module(self.entry.batch_module).load
        return load(threads)
