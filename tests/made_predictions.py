"""Predictions for tests, from columns."""

from typing import Any

import numpy as np

from lib.evaluation.metrics import AllPredictions
from lib.tasks.age import AgePredictions
from lib.tasks.gender import GenderPredictions


def predictions(
    true_age: np.ndarray,
    true_gender: np.ndarray,
    age: np.ndarray,
    female: np.ndarray,
    group: np.ndarray | None = None,
    **ages: Any,
) -> AllPredictions:
    """Predictions of both tasks; `ages` are further fields of `AgePredictions`."""
    return AllPredictions(
        {
            "age": AgePredictions(true_age, age, **ages),
            "gender": GenderPredictions(true_gender, female),
        },
        group,
    )
