"""Label rows and the truth → the arrays that `lib.evaluation.metrics` takes."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.evaluation.comparison import Comparison
from lib.evaluation.metrics import Floats, Predictions
from lib.models.expectation import AGE_CLASSES
from lib.scoring.schema import AGE_DISTRIBUTION


def predictions_of(comparison: Comparison) -> Predictions:
    """The comparison as arrays; the most likely age is known where the distributions are."""
    truth, labels = comparison.truth, comparison.labels
    distributions = age_distributions(labels)
    return Predictions(
        true_age=_floats(truth["age"]),
        true_gender=_objects(truth["gender"]),
        age=_floats(labels["age"]),
        female=_female(labels),
        age_argmax=None if distributions is None else _argmax(distributions),
        age_low=_floats(labels["age_low"]),
        age_high=_floats(labels["age_high"]),
        sigma=_floats(truth["sigma"]) if "sigma" in truth.column_names else None,
        group=_objects(truth["group"]),
    )


def age_distributions(labels: pa.Table) -> NDArray[np.float32] | None:
    """The distributions of the ages: float32 (n, 101), NaN for rows without; None: no such column."""
    if AGE_DISTRIBUTION.name not in labels.column_names:
        return None
    column = labels[AGE_DISTRIBUTION.name].combine_chunks()
    distributions = np.full((len(column), AGE_CLASSES), np.nan, np.float32)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    distributions[given] = column.flatten().to_numpy().reshape(-1, AGE_CLASSES)
    return distributions


def _argmax(distributions: NDArray[np.float32]) -> Floats:
    likeliest = distributions.argmax(axis=1).astype(np.float64)
    return np.where(np.isnan(distributions[:, 0]), np.nan, likeliest)


def _female(labels: pa.Table) -> Floats:
    score = _floats(labels["gender_score"])
    return np.where(_objects(labels["gender"]) == "female", score, 1 - score)


def _floats(column: pa.ChunkedArray) -> Floats:
    return column.to_pandas().to_numpy(np.float64, na_value=np.nan)


def _objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return np.array(column.to_pylist(), dtype=object)
