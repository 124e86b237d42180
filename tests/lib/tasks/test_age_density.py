"""The probability of a labelled age, under the calibration that intervals have."""

import numpy as np
import pytest

from lib.tasks.expectation import AGE_CLASSES, age_density, age_interval


def gaussian(mean: float, std: float) -> np.ndarray:
    p = np.exp(-((np.arange(AGE_CLASSES) - mean) ** 2) / (2 * std**2))
    return (p / p.sum())[np.newaxis]


def test_an_exact_age_has_the_probability_of_its_class() -> None:
    p = gaussian(40, 6)
    for age in (0, 25, 40, 57, 100):
        np.testing.assert_allclose(age_density(p, [age], [age]), p[:, age], atol=1e-12)


def test_a_band_has_the_mean_of_its_years() -> None:
    p = gaussian(40, 6)
    np.testing.assert_allclose(age_density(p, [38], [47]), [p[0, 38:48].mean()])


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_scale_stretches_as_that_of_intervals(scale: float) -> None:
    """The years inside a stretched interval have together the probability that it promises."""
    p = gaussian(50, 5)
    low, high = age_interval(p, 0.9, scale)
    ages = np.arange(AGE_CLASSES)
    density = age_density(p.repeat(AGE_CLASSES, 0), ages, ages, np.full(AGE_CLASSES, scale))
    assert density.sum() == pytest.approx(1, abs=1e-6)
    inside = density[(ages >= low[0]) & (ages <= high[0])].sum()
    assert inside == pytest.approx(0.9, abs=0.06 / scale)
    assert density[50] == pytest.approx(p[0, 50] / scale, rel=0.05)


def test_ages_outside_of_the_classes_have_none() -> None:
    assert age_density(gaussian(90, 6), [110], [110]).tolist() == [0]
