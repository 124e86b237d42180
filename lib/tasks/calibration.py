"""Calibration: the factors, fitted on validation data, that make probabilities agree with frequencies."""

import numpy as np
from numpy.typing import ArrayLike

from lib.tasks.task import Floats, Mask

INTERVAL_COVERAGE = 0.8
"""Share of the true ages that should lie between `age_low` and `age_high`."""
_TEMPERATURES = (0.05, 20.0)
SCALE_AGES = np.arange(0, 101, 5)
"""Expected ages, in years, at which `fit_interval_scales` finds a scale."""
_LEAST_BANDWIDTH = 5.0
"""Years, of the Gaussian by which faces of a similar expected age count."""
_NEIGHBOURS = 200
"""Effective number of faces that a scale must rest on; the bandwidth grows until there are so many."""

FEWEST_FACES = int(np.ceil(INTERVAL_COVERAGE / (1 - INTERVAL_COVERAGE) - 1e-9))
"""With which `fit_interval_scales` can promise `INTERVAL_COVERAGE`."""


def fit_interval_scales(
    true_age: Floats, age: Floats, low: Floats, high: Floats, coverage: float = INTERVAL_COVERAGE
) -> tuple[float, ...]:
    """Find the factors on an interval's width with which it covers the share that it promises.

    Both ends move away from the expected age, or towards it, by the same factor. Each face needs
    some factor to be covered; the answer is the quantile of those, as in split conformal prediction
    (Romano, Patterson and Candès 2019, with the distance from the expectation as the score). One factor
    for all would be too wide where ages are easy to tell and too narrow elsewhere, so that the faces
    near an expected age count most for the factor there, by a Gaussian of the distance (localized
    conformal prediction: Guan, Biometrika 2023).

    Args:
        true_age, age, low, high: (n,) each, in years, low <= age <= high, of validation data.
        coverage: between 0 and 1.

    Returns:
        A factor for each of `SCALE_AGES`; `interval_scale` gives those between.

    Raises:
        ValueError: there are too few faces to promise that coverage.
    """
    if len(age) < np.ceil(coverage / (1 - coverage) - 1e-9):
        raise ValueError(f"{len(age)} faces are too few for a coverage of {coverage}")
    error = true_age - age
    reach = np.where(error > 0, high - age, age - low)
    needed = np.abs(error) / np.maximum(reach, 1e-9)
    order = np.argsort(needed)
    needed, age = needed[order], age[order]
    scales = []
    for center in SCALE_AGES:
        mass = np.cumsum(_weights(np.abs(age - center)))
        # A new face weighs as much as the nearest one, 1, and may need more than all of these.
        enough = np.searchsorted(mass, coverage * (mass[-1] + 1) - 1e-9)
        scales.append(float(needed[min(enough, len(needed) - 1)]))
    return tuple(scales)


def interval_scale(scales: float | tuple[float, ...], age: Floats) -> Floats:
    """The factor for each expected age, (n,), from those of `SCALE_AGES`, or from one for all."""
    if isinstance(scales, tuple):
        return np.interp(age, SCALE_AGES, scales)
    return np.full(len(age), scales)


def _weights(distance: Floats) -> Floats:
    """Weights of faces by their distance in years, 1 for the nearest; enough of them count."""
    bandwidth = _LEAST_BANDWIDTH
    least = min(_NEIGHBOURS, len(distance))
    while True:
        weights = np.exp((distance.min() ** 2 - distance**2) / (2 * bandwidth**2))
        if bandwidth > 1000 or weights.sum() ** 2 / (weights**2).sum() >= least * 0.999:
            return weights
        bandwidth *= 1.25


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

    odds = logits(probability)
    signed = np.where(positive, odds, -odds)

    def log_loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    found = minimize_scalar(log_loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def apply_temperature(probability: ArrayLike, temperature: float) -> Floats:
    """Calibrate probabilities of any shape: sigmoid(logit / temperature)."""
    return 1 / (1 + np.exp(-logits(probability) / temperature))


def logits(probability: ArrayLike) -> Floats:
    """Log odds of probabilities of any shape, between -16 and 16."""
    smallest = 1e-7  # a float32 that is rounded to 0 or 1 would be infinitely sure
    p = np.clip(np.asarray(probability, np.float64), smallest, 1 - smallest)
    return np.log(p / (1 - p))
