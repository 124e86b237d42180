import numpy as np
import pytest

from lib.tasks.age_metrics import interval_coverage
from lib.tasks.calibration import (
    SCALE_AGES,
    IntervalScales,
    alone_scale,
    apply_temperature,
    fit_interval_scales,
    fit_temperature,
    scaled_interval,
)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def coverage(by: np.ndarray, truth: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[float]:
    """In bands of ten years of `by`."""
    bands = [(by >= first) & (by < first + 10) for first in range(0, 90, 10)]
    return [interval_coverage(truth[band], low[band], high[band]) or 0 for band in bands]


@pytest.mark.parametrize("width", [0.3, 1.0, 4.0])
def test_intervals_have_the_coverage(width: float) -> None:
    rng = np.random.default_rng(5)
    truth = rng.uniform(20, 80, 5000)
    age = truth + rng.normal(0, 5, 5000)
    low, high = age - 5 * width, age + 7 * width
    scales = fit_interval_scales(truth, age, low, high)
    low, high = scaled_interval(scales, age, low, high)
    assert interval_coverage(truth, low, high) == pytest.approx(0.8, abs=0.01)


def test_intervals_need_faces() -> None:
    with pytest.raises(ValueError, match="2 faces are too few"):
        fit_interval_scales(floats(1, 2), floats(1, 2), floats(0, 0), floats(9, 9))


def test_the_coverage_holds_at_each_expected_and_each_true_age() -> None:
    """Children are easy to tell, and the young are taken for older: for one scale, and for one by the
    expected age alone, these would be seldom inside."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(0, 90, 20_000)
    taken_for_older = 6 * np.exp(-(((truth - 15) / 6) ** 2))
    spread = 1 + truth / 10
    age = (truth + taken_for_older + rng.normal(0, 1, len(truth)) * spread).clip(0, 100)
    low, high = np.maximum(age - 6, 0), np.minimum(age + 6, 100)
    scales = fit_interval_scales(truth, age, low, high)
    found = scaled_interval(scales, age, low, high)
    np.testing.assert_allclose(coverage(age, truth, *found), 0.8, atol=0.04)
    np.testing.assert_allclose(coverage(truth, truth, *found), 0.8, atol=0.05)
    alone = scaled_interval(IntervalScales.of((scales.alone,)), age, low, high)
    np.testing.assert_allclose(coverage(age, truth, *alone), 0.8, atol=0.1)
    assert min(coverage(truth, truth, *alone)) < 0.72


def test_perfect_predictions_have_intervals() -> None:
    age = np.linspace(0, 100, 500)
    scales = fit_interval_scales(age, age, age - 1, age + 1)
    low, high = scaled_interval(scales, age, age - 1, age + 1)
    assert (high - low).max() < 1e-3


def test_scales_of_few_faces_are_one_for_all() -> None:
    rng = np.random.default_rng(3)
    age = rng.uniform(0, 90, 30)
    scales = fit_interval_scales(age + rng.normal(0, 5, 30), age, age - 5, age + 5)
    for row in scales:
        assert row == pytest.approx([row[0]] * len(SCALE_AGES))


def test_a_number_holds_for_all_ages() -> None:
    age, low, high = floats(0, 50, 98), floats(0, 40, 90), floats(2, 54, 100)
    found = scaled_interval(IntervalScales.of(1.5), age, low, high)
    np.testing.assert_allclose(found, [(0, 35, 86), (3, 56, 100)])
    assert alone_scale(IntervalScales.of(1.5), age).tolist() == [1.5] * 3


def test_an_interval_holds_all_ages_that_its_factor_lets_in() -> None:
    rng = np.random.default_rng(0)
    scales = IntervalScales(*(tuple(row) for row in rng.uniform(0.3, 2, (3, len(SCALE_AGES)))))
    age = rng.uniform(0, 100, 200)
    low, high = (age - rng.uniform(0, 9, 200)).clip(0), (age + rng.uniform(0, 9, 200)).clip(0, 100)
    possible = np.linspace(0, 100, 2001)
    found = np.stack(scaled_interval(scales, age, low, high), axis=1)
    for a, below, above, ends in zip(age, age - low, high - age, found, strict=True):
        reach = np.where(possible < a, below, above)
        scale = np.interp(a, SCALE_AGES, scales.by_expected)
        scale *= np.interp(possible, SCALE_AGES, scales.by_true)
        inside = possible[np.abs(possible - a) <= reach * scale]
        by_hand = (inside[0], inside[-1]) if len(inside) else (a, a)
        np.testing.assert_allclose(ends, by_hand, atol=0.051)
        assert ends[0] <= a <= ends[1]


def test_unknown_ages_have_unknown_intervals() -> None:
    nothing = floats(np.nan)
    assert np.isnan(scaled_interval(IntervalScales.of(2.0), nothing, nothing, nothing)).all()


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
