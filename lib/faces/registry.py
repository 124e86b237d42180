"""The detectors by name. Another one is another file and one line here."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lib.common.errors import UserError
from lib.faces.detections import Detector
from lib.scoring.placement import CPU_WORKER_GIB

Kind = Literal["mtcnn", "deepface", "yunet", "none"]


@dataclass(frozen=True)
class DetectorSpec:
    """Which detector to use; small, so that it travels to the workers.

    Attributes:
        kind: "none" says that the images are face crops already.
        weights: file of the weights for "yunet"; None for the others.
    """

    kind: Kind
    weights: str | None = None

    def check(self) -> None:
        """Refuse what cannot work, before anything is loaded.

        Raises:
            UserError: weights are missing, unreadable, or given to a detector that has its own.
        """
        if self.kind == "yunet" and self.weights is None:
            raise UserError("--detector yunet needs --detector-weights FILE.onnx")
        if self.kind != "yunet" and self.weights is not None:
            raise UserError(f"--detector-weights is for yunet; {self.kind} takes none")
        self.digest()

    def digest(self) -> str:
        """What decides which faces are found: the kind, and the sha256 of the weights' file."""
        if self.weights is None:
            return self.kind
        try:
            return f"{self.kind}@{hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()}"
        except OSError as error:
            raise UserError(
                f"cannot read the detector's weights {self.weights!r}: {error.strerror}"
            ) from None

    @property
    def worker_gib(self) -> float:
        """Memory of a worker, in GiB besides the weights of its models, with the largest pictures."""
        return 2 if self.kind == "deepface" else CPU_WORKER_GIB

    def load(self, threads: int) -> Detector | None:
        """Load the detector, with `threads` for its computations; None for "none"."""
        match self.kind:
            case "mtcnn" | "deepface":
                from lib.common import tensorflow_settings as runtime

                runtime.configure(threads)
                from lib.faces.deepface import DeepfaceMtcnn
                from lib.faces.mtcnn import Mtcnn

                return Mtcnn() if self.kind == "mtcnn" else DeepfaceMtcnn()
            case "yunet":
                from lib.faces.yunet import Yunet

                assert self.weights is not None
                return Yunet(self.weights)
            case "none":
                return None
