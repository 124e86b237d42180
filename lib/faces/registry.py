"""The detectors by name. A new detector is one file with a function `load`, and one line here."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lib.common.errors import UserError
from lib.faces.detections import Detector

WORKER_GIB = 1.0
"""Memory of a worker in GiB, besides the weights of its models, with the largest pictures."""
DEFAULT_DETECTOR, NO_DETECTOR = "mtcnn", "none"


@dataclass(frozen=True)
class DetectorEntry:
    """What is known of a detector before it is imported.

    Attributes:
        help: for the command line.
        module: has `load(threads, weights) -> Detector`; None: the images are face crops already.
        takes_weights: whether it needs a file of weights of the user's.
        worker_gib: memory of a worker that uses it, as `WORKER_GIB`.
    """

    help: str
    module: str | None
    takes_weights: bool = False
    worker_gib: float = WORKER_GIB


DETECTORS = {
    DEFAULT_DETECTOR: DetectorEntry(
        "MTCNN, with the weights of its PyPI package", "lib.faces.mtcnn"
    ),
    "deepface": DetectorEntry(
        "MTCNN as the package deepface runs it: its boxes, for more work",
        "lib.faces.deepface",
        worker_gib=2.0,
    ),
    "yunet": DetectorEntry(
        "YuNet, with the weights of --detector-weights", "lib.faces.yunet", takes_weights=True
    ),
    NO_DETECTOR: DetectorEntry("the images are face crops already", None),
}
if TYPE_CHECKING:
    DetectorName = str
else:
    DetectorName = Literal[tuple(DETECTORS)]

DETECTOR_HELP = "Face detector. " + "; ".join(f"{n}: {e.help}" for n, e in DETECTORS.items()) + "."
DETECTOR_WEIGHTS_HELP = "ONNX file with the weights, for " + ", ".join(
    name for name, entry in DETECTORS.items() if entry.takes_weights
)


@dataclass(frozen=True)
class DetectorSpec:
    """Which detector to use; small, so that it travels to the workers.

    Attributes:
        name: one of `DETECTORS`.
        weights: file of the weights, for detectors that need one; None for the others.
    """

    name: DetectorName = DEFAULT_DETECTOR
    weights: str | None = None

    @classmethod
    def of(cls, name: DetectorName, weights: str | None) -> "DetectorSpec":
        """The detector of the options, with an absolute path of its weights.

        Raises:
            UserError: there is no such detector; weights are missing, unreadable, or not needed.
        """
        if name not in DETECTORS:
            raise UserError(f"--detector cannot be {name!r}; choose from {', '.join(DETECTORS)}")
        spec = cls(name, None if weights is None else str(Path(weights).resolve()))
        if spec.entry.takes_weights and weights is None:
            raise UserError(f"--detector {name} needs --detector-weights FILE.onnx")
        if not spec.entry.takes_weights and weights is not None:
            takers = ", ".join(n for n, entry in DETECTORS.items() if entry.takes_weights)
            raise UserError(f"--detector-weights is for {takers}; {name} takes none")
        spec.digest()
        return spec

    @property
    def entry(self) -> DetectorEntry:
        """What is known of it."""
        return DETECTORS[self.name]

    def digest(self) -> str:
        """What decides which faces are found: the name, and the sha256 of the weights' file.

        Raises:
            UserError: the file cannot be read.
        """
        if self.weights is None:
            return self.name
        try:
            return f"{self.name}@{hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()}"
        except OSError as error:
            raise UserError(
                f"cannot read the detector's weights {self.weights!r}: {error.strerror}"
            ) from None

    def load(self, threads: int) -> Detector | None:
        """Load the detector, with `threads` for its computations; None for face crops."""
        if self.entry.module is None:
            return None
        load: Callable[[int, str | None], Detector] = import_module(self.entry.module).load
        return load(threads, self.weights)
