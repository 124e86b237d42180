import numpy as np
import pytest

from lib.tasks.age_metrics import interval_coverage
from lib.tasks.calibration import (
    SCALE_AGES,
    apply_temperature,
    fit_interval_scales,
    fit_temperature,
    interval_scale,
)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


@pytest.mark.parametrize("width", [0.3, 1.0, 4.0])
def test_interval_scale_gives_the_coverage(width: float) -> None:
    rng = np.random.default_rng(5)
    truth = rng.uniform(20, 80, 5000)
    age = truth + rng.normal(0, 5, 5000)
    low, high = age - 5 * width, age + 7 * width
    scale = interval_scale(fit_interval_scales(truth, age, low, high), age)
    low, high = age - scale * (age - low), age + scale * (high - age)
    assert interval_coverage(truth, low, high) == pytest.approx(0.8, abs=0.01)


def test_interval_scale_needs_faces() -> None:
    with pytest.raises(ValueError, match="2 faces are too few"):
        fit_interval_scales(floats(1, 2), floats(1, 2), floats(0, 0), floats(9, 9))


def test_interval_scales_follow_the_errors_at_each_age() -> None:
    """Ages of children are easy to tell: one scale for all would promise too little of them."""
    rng = np.random.default_rng(3)
    age = rng.uniform(0, 90, 20_000)
    truth = age + rng.normal(0, 1, len(age)) * (1 + age / 10)
    low, high = age - 6, age + 6
    scale = interval_scale(fit_interval_scales(truth, age, low, high), age)
    low, high = age - scale * (age - low), age + scale * (high - age)
    for band in range(0, 90, 10):
        near = (age >= band) & (age < band + 10)
        assert interval_coverage(truth[near], low[near], high[near]) == pytest.approx(0.8, abs=0.05)


def test_interval_scales_of_few_faces_are_one_for_all() -> None:
    rng = np.random.default_rng(3)
    age = rng.uniform(0, 90, 30)
    scales = fit_interval_scales(age + rng.normal(0, 5, 30), age, age - 5, age + 5)
    assert len(scales) == len(SCALE_AGES)
    assert len({round(scale, 9) for scale in scales}) == 1


def test_one_scale_holds_for_all_ages() -> None:
    assert interval_scale(1.5, floats(0, 50, 100)).tolist() == [1.5] * 3
    scales = tuple(float(n) for n in range(len(SCALE_AGES)))
    assert interval_scale(scales, floats(0, 7.5, 100)).tolist() == [0, 1.5, 20]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(7)
    calibrated = rng.uniform(0.02, 0.98, 40_000)
    positive = rng.random(40_000) < calibrated
    distorted = apply_temperature(calibrated, 1 / temperature)
    assert fit_temperature(positive, distorted) == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(apply_temperature(distorted, temperature), calibrated, atol=1e-4)


def test_temperature_of_certainty_is_finite() -> None:
    certain = np.array([0.0, 1.0])
    assert 0.05 <= fit_temperature(certain == 1, certain) <= 20
    assert 0.05 <= fit_temperature(certain == 0, certain) <= 20
