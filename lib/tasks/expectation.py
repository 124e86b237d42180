"""From a distribution over ages to numbers: the one place where that is done."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

AGE_CLASSES = 101
AGES = np.arange(AGE_CLASSES, dtype=np.float64)


class Expectation(NamedTuple):
    """Expected ages and their standard deviations, each float64 (n,), in years."""

    age: NDArray[np.float64]
    std: NDArray[np.float64]


def expected_age(probabilities: ArrayLike) -> Expectation:
    """Give the expectation over all classes and the standard deviation of each distribution.

    The expectation, not the most likely class, is the answer: it is the better estimate by about half
    a year (DEX: Rothe, Timofte and Van Gool, ICCV workshops 2015, equation 1).

    Args:
        probabilities: (n, 101), row i the probabilities of the ages 0 to 100 years; rows that do not
            quite sum to one (float32, half precision) are normalised.

    Raises:
        ValueError: the last axis is not 101 long.
    """
    p = _distributions(probabilities)
    mean = p @ AGES
    variance = p @ AGES**2 - mean**2
    return Expectation(mean, np.sqrt(np.maximum(variance, 0.0)))


def age_interval(
    probabilities: ArrayLike, coverage: float = 0.8, scale: ArrayLike = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the central interval that holds the true age with the probability `coverage`.

    Each class stands for the year from its age to the next birthday, centred on the class as the
    expectation is; inside a class the distribution counts as even.

    Args:
        probabilities: (n, 101), as for `expected_age`.
        coverage: between 0 and 1.
        scale: factor on the distance of both ends from the expected age, of each face, (n,), or of all,
            fitted on validation data so that the interval covers its share; 1
            leaves the model's own distribution as it is.

    Returns:
        Lower and upper ends, float64 (n,) each, in years, inside 0..100.
    """
    p = _distributions(probabilities)
    mean, _ = expected_age(p)
    cumulative = np.cumsum(p, axis=1)
    tail = (1.0 - coverage) / 2.0
    low, high = (_quantile(cumulative, p, q) for q in (tail, 1.0 - tail))
    scale = np.asarray(scale)
    low = mean - scale * (mean - np.minimum(low, mean))
    high = mean + scale * (np.maximum(high, mean) - mean)
    return np.clip(low, 0.0, 100.0), np.clip(high, 0.0, 100.0)


def age_density(
    probabilities: ArrayLike, low: ArrayLike, high: ArrayLike, scale: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """Give the probability of an age, or the mean probability of the years of a band.

    The classes stand for years as in `age_interval`, and the distribution is stretched about the
    expected age by the same scale.

    Args:
        probabilities: (n, 101), as for `expected_age`.
        low, high: first and last whole year, (n,) each; the same for an exact age.
        scale: of each face, (n,), or of all.

    Returns:
        float64 (n,), at most about 1.
    """
    p = _distributions(probabilities)
    mean, _ = expected_age(p)
    first, last = np.asarray(low, np.float64), np.asarray(high, np.float64)
    factor = np.asarray(scale, np.float64)
    cumulative = np.concatenate([np.zeros((len(p), 1)), np.cumsum(p, axis=1)], axis=1)
    # The edge of class i is at i - 0.5, where `cumulative` is its element i.
    below, above = (
        _between(cumulative, mean + (end - mean) / factor + 0.5)
        for end in (first - 0.5, last + 0.5)
    )
    return np.maximum(above - below, 0.0) / (last - first + 1.0)


def _between(values: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate in each row, at its position, between neighbours."""
    rows = np.arange(len(values))
    positions = np.clip(positions, 0.0, values.shape[1] - 1)
    left = np.minimum(positions.astype(np.int64), values.shape[1] - 2)
    share = positions - left
    return (1.0 - share) * values[rows, left] + share * values[rows, left + 1]


def distribution_sums(
    probabilities: NDArray[np.float32], classes: NDArray[Any]
) -> NDArray[np.float64]:
    """Add up the distributions of the faces of each true class, for `mean_distributions`.

    Args:
        probabilities: (n, c).
        classes: true ones, (n,); rows of others than 0 to c - 1 are left out.

    Returns:
        float64 (c, c + 1): sums of probabilities, and in the last column the number of faces.
    """
    count = probabilities.shape[1]
    usable = np.isin(classes, np.arange(count))
    counted = np.pad(probabilities[usable], ((0, 0), (0, 1)), constant_values=1.0)
    sums = np.zeros((count, count + 1))
    np.add.at(sums, classes[usable].astype(np.int64), counted)
    return sums


def mean_distributions(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of `distribution_sums` → (c, c): mean distribution of each true class, NaN without faces."""
    with np.errstate(invalid="ignore"):
        return sums[:, :-1] / sums[:, -1:]


def _quantile(
    cumulative: NDArray[np.float64], p: NDArray[np.float64], q: float
) -> NDArray[np.float64]:
    rows = np.arange(len(p))
    classes = np.minimum((cumulative < q).sum(axis=1), AGE_CLASSES - 1)
    inside = (q - (cumulative[rows, classes] - p[rows, classes])) / np.maximum(
        p[rows, classes], np.finfo(np.float64).tiny
    )
    return classes - 0.5 + np.clip(inside, 0.0, 1.0)


def _distributions(probabilities: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != AGE_CLASSES:
        raise ValueError(f"expected probabilities of shape (n, {AGE_CLASSES}), got {p.shape}")
    return p / p.sum(axis=1, keepdims=True)
