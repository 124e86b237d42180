"""Calibration: the factors, fitted on validation data, that make probabilities agree with frequencies."""

import numpy as np
from numpy.typing import ArrayLike

from lib.tasks.task import Floats, Mask

INTERVAL_COVERAGE = 0.8
"""Share of the true ages that should lie between `age_low` and `age_high`."""
_TEMPERATURES = (0.05, 20.0)


FEWEST_FACES = int(np.ceil(INTERVAL_COVERAGE / (1 - INTERVAL_COVERAGE) - 1e-9))
"""With which `fit_interval_scale` can promise `INTERVAL_COVERAGE`."""


def fit_interval_scale(
    true_age: Floats, age: Floats, low: Floats, high: Floats, coverage: float = INTERVAL_COVERAGE
) -> float:
    """Find the factor on an interval's width with which it covers the share that it promises.

    Both ends move away from the expected age, or towards it, by the same factor. Each face needs
    some factor to be covered; the answer is the quantile of those, as in split conformal prediction
    (Romano, Patterson and Candès 2019, with the distance from the expectation as the score).

    Args:
        true_age, age, low, high: (n,) each, in years, low <= age <= high, of validation data.
        coverage: between 0 and 1.

    Raises:
        ValueError: there are too few faces to promise that coverage.
    """
    error = true_age - age
    reach = np.where(error > 0, high - age, age - low)
    needed = np.abs(error) / np.maximum(reach, 1e-9)
    rank = int(np.ceil(coverage * (len(needed) + 1)))
    if rank > len(needed):
        raise ValueError(f"{len(needed)} faces are too few for a coverage of {coverage}")
    return float(np.sort(needed)[rank - 1])


def fit_temperature(positive: Mask, probability: Floats) -> float:
    """Find the temperature T with which sigmoid(logit / T) has the lowest log loss.

    Guo, Pleiss, Sun and Weinberger, ICML 2017, section 4.2. Above 1 the model was too sure.

    Args:
        positive: (n,) bool, of validation data, at least one.
        probability: (n,) of positive, before calibration.

    Returns:
        The temperature, from 0.05 to 20.
    """
    # Only fitting needs SciPy, which takes long to import; every worker applies temperatures.
    from scipy.optimize import minimize_scalar

    logits = _logits(probability)
    signed = np.where(positive, logits, -logits)

    def log_loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    found = minimize_scalar(log_loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def apply_temperature(probability: ArrayLike, temperature: float) -> Floats:
    """Calibrate probabilities of any shape: sigmoid(logit / temperature)."""
    return 1 / (1 + np.exp(-_logits(probability) / temperature))


def _logits(probability: ArrayLike) -> Floats:
    smallest = 1e-7  # a float32 that is rounded to 0 or 1 would be infinitely sure
    p = np.clip(np.asarray(probability, np.float64), smallest, 1 - smallest)
    return np.log(p / (1 - p))
