"""Calibration: the factors, fitted on validation data, that make probabilities agree with frequencies."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from lib.tasks.task import Factor, Floats, Mask

INTERVAL_COVERAGE = 0.8
"""Share of the true ages that should lie between `age_low` and `age_high`."""
_TEMPERATURES = (0.05, 20.0)
SCALE_AGES = np.arange(0.0, 101.0, 5.0)
"""Ages, in years, at which `fit_interval_scales` finds scales."""
_LEAST_BANDWIDTH = 5.0
"""Years, of the Gaussian by which faces of a similar age count."""
_NEIGHBOURS = 200
"""Effective number of faces that a scale must rest on; the bandwidth grows until there are so many."""
_ROUNDS = 5
"""Of fitting both scales in turn. On halves of UTKFace's validation split fewer leave people of 10 to 19
years with too narrow intervals, and more only make all intervals wider."""
_LEAST_SCALE = 1e-3
"""Where predictions are perfect: the other scale is fitted to what this one leaves, by division."""

FEWEST_FACES = int(np.ceil(INTERVAL_COVERAGE / (1 - INTERVAL_COVERAGE) - 1e-9))
"""With which `fit_interval_scales` can promise `INTERVAL_COVERAGE`."""


class IntervalScales(NamedTuple):
    """Factors on the width of an age's interval, at each of `SCALE_AGES`.

    Attributes:
        by_expected, by_true: by the age that is expected, and by the one of which is asked whether it
            lies in the interval: their product counts.
        alone: by the age that is expected, where the true age must not count.
    """

    by_expected: tuple[float, ...]
    by_true: tuple[float, ...]
    alone: tuple[float, ...]

    @classmethod
    def of(cls, factor: Factor) -> Self:
        """Those that the factor of a calibration stands for.

        One number holds for all ages; one row, of a card of an earlier version, for expected ages.
        """
        rows = factor if isinstance(factor, tuple) else ((factor,) * len(SCALE_AGES),)
        if len(rows) > 1:
            return cls(*rows)
        return cls(rows[0], (1.0,) * len(SCALE_AGES), rows[0])


def fit_interval_scales(
    true_age: Floats, age: Floats, low: Floats, high: Floats, coverage: float = INTERVAL_COVERAGE
) -> IntervalScales:
    """Find the factors on an interval's width with which it covers the share that it promises.

    Each face needs some factor for its true age to be covered; a scale is the quantile of those, as in
    split conformal prediction (Romano, Patterson and Candès 2019, with the distance from the expectation
    as the score). One factor for all would be too wide where ages are easy to tell and too narrow
    elsewhere, so that faces near an age count most for the factor there, by a Gaussian of the distance:
    near an expected age (localized conformal prediction: Guan, Biometrika 2023), and near a true age
    (label-conditional conformal prediction: Vovk 2012, "Conditional Validity of Inductive Conformal
    Predictors"), because a model that takes young people for older ones would cover few of them. The two
    are fitted in turn, each with the other one as it is.

    Args:
        true_age, age, low, high: (n,) each, in years, low <= age <= high, of validation data.
        coverage: between 0 and 1.

    Raises:
        ValueError: there are too few faces to promise that coverage.
    """
    if len(age) < np.ceil(coverage / (1 - coverage) - 1e-9):
        raise ValueError(f"{len(age)} faces are too few for a coverage of {coverage}")
    error = true_age - age
    reach = np.where(error > 0, high - age, age - low)
    needed = np.abs(error) / np.maximum(reach, 1e-9)
    alone = _local_quantiles(age, needed, coverage)
    by_expected, by_true = alone, np.ones_like(alone)

    def still_needed() -> Floats:
        at_expected = np.interp(age, SCALE_AGES, by_expected)
        return needed / (at_expected * np.interp(true_age, SCALE_AGES, by_true))

    for _ in range(_ROUNDS):
        by_true = by_true * _local_quantiles(true_age, still_needed(), coverage)
        # What is promised of a label holds for what is seen of it, the expected age: it comes last.
        by_expected = by_expected * _local_quantiles(age, still_needed(), coverage)
    # Only the product counts: around 1 both can be read.
    mean = np.exp(np.log(by_true).mean())
    rows = by_expected * mean, by_true / mean, alone
    return IntervalScales(*(tuple(map(float, row)) for row in rows))


def alone_scale(scales: IntervalScales, age: Floats) -> Floats:
    """The factor of each face, (n,), by its expected age alone."""
    return np.interp(age, SCALE_AGES, scales.alone)


def scaled_interval(
    scales: IntervalScales, age: Floats, low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    """Widen or narrow intervals: from the lowest age to the highest that its factor lets in.

    Args:
        scales: of the calibration.
        age, low, high: (n,) each, expected ages and the ends of their intervals, low <= age <= high.

    Returns:
        Lower and upper ends, (n,) each, in years, inside 0..100; low <= age <= high.
    """
    by_expected, by_true = np.interp(age, SCALE_AGES, scales.by_expected), np.array(scales.by_true)
    upper = _farthest(age, by_expected * (high - age), SCALE_AGES, by_true)
    lower = _farthest(-age, by_expected * (age - low), -SCALE_AGES[::-1], by_true[::-1])
    return -lower, upper


def _farthest(age: Floats, reach: Floats, knots: Floats, factors: Floats) -> Floats:
    """The highest value whose distance from `age` is at most the reach times the factor there, (n,)."""
    # Between these points, from the age to the last knot, the distance and the factor are linear.
    points = np.maximum(knots, age[:, np.newaxis])
    excess = points - age[:, np.newaxis]
    excess -= reach[:, np.newaxis] * np.interp(points, knots, factors)
    rows, last = np.arange(len(age)), len(knots) - 1
    inside = last - (excess <= 0)[:, ::-1].argmax(axis=1)
    outside = np.minimum(inside + 1, last)
    below, above = excess[rows, inside], excess[rows, outside]
    share = np.divide(below, below - above, out=np.zeros(len(age)), where=above > below)
    return points[rows, inside] + share * (points[rows, outside] - points[rows, inside])


def _local_quantiles(ages: Floats, needed: Floats, coverage: float) -> Floats:
    """The quantile of what faces need near each of `SCALE_AGES`.

    Args:
        ages: (n,), in years.
        needed: (n,).
        coverage: which quantile.
    """
    order = np.argsort(needed)
    needed, ages = needed[order], ages[order]
    quantiles = []
    for center in SCALE_AGES:
        mass = np.cumsum(_weights(np.abs(ages - center)))
        # A new face weighs as much as the nearest one, 1, and may need more than all of these.
        enough = np.searchsorted(mass, coverage * (mass[-1] + 1) - 1e-9)
        quantiles.append(needed[min(enough, len(needed) - 1)])
    return np.maximum(quantiles, _LEAST_SCALE)


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
