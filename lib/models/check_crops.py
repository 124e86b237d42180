"""Crops and answers by which the engines of a bundle are compared, wherever it is loaded."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lib.tasks import TASKS

COUNT, PATCHES = 8, 6
TOLERANCE = 1e-4
"""Of the classes: a hundredth of a year, of 101. Engines and CPUs differ by a hundredth of that."""


def check_crops(size: int) -> NDArray[np.uint8]:
    """Coloured patches, uint8 (8, size, size, 3), RGB, the same wherever they are made."""
    # Unlike those of newer generators, NumPy never changes these numbers.
    patches = np.random.RandomState(0).randint(0, 256, (COUNT, PATCHES, PATCHES, 3))
    places = np.arange(size) * PATCHES // size
    return patches[:, places][:, :, places].astype(np.uint8)


def answers_of(probabilities: Mapping[str, NDArray[np.float32]]) -> dict[str, tuple[float, ...]]:
    """The expected class of each crop, by task; from float32 (n, classes) by task."""
    return {
        task: tuple(
            round(float(c), 6) for c in values.astype(np.float64) @ np.arange(values.shape[1])
        )
        for task, values in probabilities.items()
    }


def difference(
    found: Mapping[str, Sequence[float]], wanted: Mapping[str, Sequence[float]]
) -> str | None:
    """Where answers differ by more than `TOLERANCE`, in words; None where they are the same."""
    for task, answers in wanted.items():
        gaps = np.abs(np.subtract(found[task], answers))
        worst = int(np.argmax(gaps))
        if not gaps[worst] <= TOLERANCE * TASKS[task].classes:
            return f"{task} {found[task][worst]:.4f} for {answers[worst]:.4f}"
    return None
