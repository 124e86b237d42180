"""Errors of predicted ages, against ages that are known exactly or as bands."""

import numpy as np
from numpy.typing import NDArray

from lib.tasks.task import Floats, Metrics, mean

Bands = tuple[Floats, Floats]
"""First and last whole year that each age may be, (n,) each; equal where it is exact."""
CUMULATIVE_SCORES = (3, 5, 10)
"""In years."""


def age_errors(true_age: Floats, age: Floats, bands: Bands | None = None) -> Floats:
    """Errors of ages in years, (n,): positive where the prediction is too old; NaN: unknown.

    Args:
        true_age: (n,) NaN: unknown.
        age: (n,) predictions; NaN: none.
        bands: the true ages where they are bands; an error is then the distance from the band, and 0
            inside it.
    """
    return age - (true_age if bands is None else np.clip(age, *bands))


def in_band(errors: Floats) -> NDArray[np.bool_]:
    """Whether the whole year that is nearest to a prediction lies in the band, from `age_errors`."""
    return np.abs(errors) <= 0.5


def age_metrics(
    true_age: Floats, age: Floats, sigma: Floats | None = None, bands: Bands | None = None
) -> Metrics:
    """Errors of ages in years, as `age_errors` defines them.

    Args:
        true_age: (n,) NaN: unknown.
        age: (n,) predictions; NaN: none.
        sigma: (n,) as in `epsilon_error`.
        bands: the true ages where they are bands.

    Returns:
        count (of the faces with both ages, on which the figures stand), missing (those with a true
        age alone), mae, rmse, bias (positive: too old), cs3, cs5, cs10 (cumulative score: the share
        of errors of at most so many years), epsilon_error, and median_predictor_mae: the MAE of the
        best constant prediction, the median of these true ages, as a floor to compare with. With
        bands also in_band, the share of predictions inside their band; None without.
    """
    known = ~np.isnan(true_age) & ~np.isnan(age)
    truth = true_age[known]
    of_known = None if bands is None else (bands[0][known], bands[1][known])
    error = age_errors(truth, age[known], of_known)
    median = np.full(len(truth), np.median(truth) if len(truth) else np.nan)
    mean_square = mean(error**2)
    return {
        "count": int(known.sum()),
        "missing": int((~np.isnan(true_age) & np.isnan(age)).sum()),
        "mae": mean(np.abs(error)),
        "rmse": None if mean_square is None else mean_square**0.5,
        "bias": mean(error),
        **{f"cs{years}": mean(np.abs(error) <= years) for years in CUMULATIVE_SCORES},
        "epsilon_error": (
            None if sigma is None else epsilon_error(truth, age[known], sigma[known])
        ),
        "median_predictor_mae": mean(np.abs(age_errors(truth, median, of_known))),
        "in_band": None if bands is None else mean(in_band(error)),
    }


def epsilon_error(mean_age: Floats, age: Floats, sigma: Floats) -> float | None:
    """Mean of 1 - exp(-(age - mean)² / 2σ²), the error of ChaLearn LAP 2015 (Escalera et al.).

    Args:
        mean_age: (n,) the mean age that people gave, in years.
        age: (n,) predictions in years.
        sigma: (n,) standard deviation of what people gave; 0: they agreed; NaN: left out.
    """
    given = ~np.isnan(sigma)
    spread = np.maximum(sigma[given], 1e-9)
    return mean(1 - np.exp(-(((age[given] - mean_age[given]) / spread) ** 2) / 2))


def interval_coverage(true_age: Floats, low: Floats, high: Floats) -> float | None:
    """Share of the true ages inside their intervals; all (n,), in years; NaN: left out."""
    known = ~np.isnan(true_age + low + high)
    return mean(((low <= true_age) & (true_age <= high))[known])
