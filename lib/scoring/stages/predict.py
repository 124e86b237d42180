"""Crops → probabilities, for age, gender or both."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lib.models.bundle import Bundle, Precision
from lib.scoring.stages.stage import Stopwatch


def probabilities_column(task: str) -> str:
    """Name of the column that holds a task's probabilities between stages."""
    return f"{task}_probabilities"


@dataclass
class Predict:
    """Adds `TASK_probabilities` (binary: float32, faces × classes) for each task.

    Attributes:
        bundle: the model.
        tasks: "age", "gender" or both. Both in one stage share the trunk where the bundle has one.
        threads: for the networks' computations; the CPUs of the worker.
        precision: what the networks compute in.
    """

    bundle: Bundle
    tasks: tuple[str, ...]
    threads: int
    precision: Precision = "float32"

    def setup(self, watch: Stopwatch) -> None:
        """Load the networks."""
        from lib.common import tensorflow_settings as runtime
        from lib.models.predictor import Predictor

        self._watch = watch
        runtime.configure(self.threads)
        self._predictor: Predictor = Predictor(self.bundle.here(), self.tasks, self.precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Predict all faces of all images of the batch at once."""
        side = self.bundle.crop.size
        counts = batch["face_count"].to_numpy()
        pixels = b"".join(batch["crops"].to_pylist())
        crops = np.frombuffer(pixels, np.uint8).reshape(-1, side, side, 3)
        ends = np.cumsum(counts)
        with self._watch("+".join(self.tasks)):
            predictions = self._predictor(crops)
        for task, probabilities in predictions.items():
            by_image = np.split(probabilities, ends)[:-1]
            column = pa.array([p.tobytes() for p in by_image], pa.binary())
            batch = batch.append_column(probabilities_column(task), column)
        return batch
