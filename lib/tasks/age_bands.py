"""Bands of ages, for figures, charts and plots by age."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

AGE_BANDS = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
_BAND_STARTS = (0, 3, 10, 20, 30, 40, 50, 60, 70)


def age_band(true_age: ArrayLike) -> NDArray[np.object_]:
    """Name the band of `AGE_BANDS` of each age.

    Args:
        true_age: (n,) in years.

    Returns:
        (n,) strings; None for ages below 0 and NaN.
    """
    age = np.asarray(true_age, np.float64)
    names = np.array([*AGE_BANDS, None], dtype=object)
    band = np.searchsorted(_BAND_STARTS, age, side="right") - 1
    return names[np.where(age >= 0, band, len(AGE_BANDS))]
