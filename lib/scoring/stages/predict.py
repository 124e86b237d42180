"""Crops → probabilities, for one or several tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from lib.models.bundle import Bundle, PrecisionChoice
from lib.models.predictor import Mirrored, Predictor, load_predictor
from lib.scoring.stages.face_arrays import face_column, face_counts, faces_of
from lib.scoring.stages.stage import Stopwatch


def probabilities_column(task: str) -> str:
    """Name of the column that holds a task's probabilities between stages."""
    return f"{task}_probabilities"


@dataclass
class Predict:
    """Adds the probabilities of each task, float32 (classes,) for each face.

    Attributes:
        bundle: the model.
        tasks: of the bundle. Those in one stage share the backbone where the bundle has one.
        threads: for the networks' computations; the CPUs of the worker.
        precision: what the networks compute in.
        gpus: GPUs of the worker, or its share of one.
        mirror: give the mean over each face and its mirror image.
    """

    bundle: Bundle
    tasks: tuple[str, ...]
    threads: int
    precision: PrecisionChoice = "float32"
    gpus: float = 0.0
    mirror: bool = False

    needs: ClassVar = ("crops",)
    drops: ClassVar = ()

    @property
    def gives(self) -> Sequence[str]:
        """See `Stage`."""
        return [probabilities_column(task) for task in self.tasks]

    def setup(self, watch: Stopwatch) -> None:
        """Load the networks."""
        self._watch = watch
        predictor = load_predictor(
            self.bundle.here(),
            self.tasks,
            self.threads,
            self.precision,
            on_gpu=self.gpus > 0,
            share=min(1.0, self.gpus),
            say=watch.say,
        )
        self._predictor: Predictor = Mirrored(predictor) if self.mirror else predictor

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Predict all faces of all images of the batch at once."""
        side = self.bundle.crop.size
        counts = face_counts(batch, "crops")
        crops = faces_of(batch, "crops", (side, side, 3))
        with self._watch("+".join(self.tasks)):
            predictions = self._predictor(crops)
        for task, probabilities in predictions.items():
            column = face_column(probabilities, counts)
            batch = batch.append_column(probabilities_column(task), column)
        return batch
