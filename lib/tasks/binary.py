"""Figures of a binary output: area under the ROC curve, reliability, calibration error."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.tasks.task import Floats, Mask

RELIABILITY_BINS = 10


class Reliability(NamedTuple):
    """Predicted against observed shares in bins of equal width over 0..1; NaN in empty bins."""

    faces: NDArray[np.int64]
    predicted: Floats
    observed: Floats


def roc_auc(positive: Mask, score: Floats) -> float | None:
    """Area under the ROC curve: the probability that a positive scores above a negative.

    Args:
        positive: (n,) bool.
        score: (n,) the higher, the likelier positive.

    Returns:
        None where one of both classes is absent.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score)) if 0 < positive.sum() < len(positive) else None


def reliability(positive: Mask, probability: Floats, bins: int = RELIABILITY_BINS) -> Reliability:
    """Compare the mean predicted probability with the observed share, bin by bin.

    Args:
        positive: (n,) bool.
        probability: (n,) of positive, in 0..1.
        bins: of equal width, each with its upper end, the first with both ends.
    """
    from sklearn.calibration import calibration_curve

    edges = np.linspace(0, 1, bins + 1)
    faces = np.bincount(np.searchsorted(edges[1:-1], probability), minlength=bins)
    predicted, observed = np.full(bins, np.nan), np.full(bins, np.nan)
    if len(positive):  # scikit-learn refuses empty arrays, and leaves empty bins out
        curve = calibration_curve(positive, probability, pos_label=True, n_bins=bins)
        observed[faces > 0], predicted[faces > 0] = curve
    return Reliability(faces, predicted, observed)


def calibration_error(positive: Mask, probability: Floats) -> float | None:
    """Expected calibration error over the bins of `reliability`, weighted by their faces.

    Naeini, Cooper and Hauskrecht, AAAI 2015, equation 3. The bins are over the probability of
    positive in 0..1, not over that of the likelier class.
    """
    if not len(positive):
        return None
    faces, predicted, observed = reliability(positive, probability)
    return float(np.nansum(faces * np.abs(predicted - observed)) / len(positive))
