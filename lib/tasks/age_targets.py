"""What is learnt of an age: target distributions, and how much each face counts."""

import numpy as np
from numpy.typing import NDArray

from lib.tasks.expectation import AGE_CLASSES


def smoothed_ages(ages: NDArray[np.integer], sigma: float) -> NDArray[np.float32]:
    """Spread each age over its neighbours with a Gaussian: a year off is less wrong than thirty.

    Label distribution smoothing: Geng, Yin and Zhou, TPAMI 2013.

    Args:
        ages: (n,) whole years in 0..100.
        sigma: standard deviation in years, above 0.

    Returns:
        (n, 101) float32; every row sums to one.
    """
    distance = (
        np.arange(AGE_CLASSES, dtype=np.float32)[None] - np.asarray(ages, np.float32)[:, None]
    )
    weight = np.exp(-0.5 * (distance / sigma) ** 2)
    return weight / weight.sum(axis=1, keepdims=True)


def spread_ages(spans: NDArray[np.integer]) -> NDArray[np.float32]:
    """Spread each band of ages evenly over its years.

    Args:
        spans: (n, 2) first and last whole year, in 0..100.

    Returns:
        (n, 101) float32; every row sums to one.
    """
    years = np.arange(AGE_CLASSES)
    inside = (years >= spans[:, :1]) & (years <= spans[:, 1:])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


def age_weights(ages: NDArray[np.integer], power: float) -> NDArray[np.float32]:
    """How much each face counts, so that rare ages are not forgotten; 1 on average.

    The frequency of an age is that of the smoothed distribution, so that an age which happens to
    have one face less than its neighbours is not made up for.

    Args:
        ages: (n,) whole years in 0..100.
        power: of the inverse frequency; 0: all count the same, 1: all ages do.
    """
    counts = np.bincount(ages, minlength=AGE_CLASSES).astype(np.float32)
    frequency = counts @ smoothed_ages(np.arange(AGE_CLASSES), 2.0)
    weights = frequency[ages] ** -power
    return (weights / weights.mean()).astype(np.float32)
