"""The figures of a validation, as sums that the parts of all workers add up to."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.tasks import TASKS
from lib.training.faces import Faces
from lib.training.recipe import Recipe


def validation_sums(
    predicted: Mapping[str, NDArray[np.float32]], faces: Faces, recipe: Recipe
) -> dict[str, float]:
    """What a worker's part adds to each sum of `validation_metrics`."""
    loss = np.zeros(len(faces))
    sums: dict[str, float] = {}
    for name, probabilities in predicted.items():
        task, classes, spans = TASKS[name], faces.classes[name], faces.spans.get(name)
        loss += task.loss(task.targets(classes, recipe, spans), probabilities, recipe)
        sums |= task.validation_sums(probabilities, classes, spans)
    return {"val_faces": float(len(faces)), "val_loss": float(np.sum(loss)), **sums}


def validation_metrics(sums: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """Means out of the sums over all faces.

    The best epoch has the least `val_error`: the error of the first task, in the order of `TASKS`.
    """
    count = sums["val_faces"]
    metrics = {name: total / count for name, total in sums.items()} | {"val_faces": count}
    first = next(task for name, task in TASKS.items() if name in tasks)
    return {**metrics, "val_error": first.validation_error(metrics)}
