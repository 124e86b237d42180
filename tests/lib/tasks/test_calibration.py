import numpy as np
import pytest

from lib.tasks.age_metrics import interval_coverage
from lib.tasks.calibration import apply_temperature, fit_interval_scale, fit_temperature


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


@pytest.mark.parametrize("width", [0.3, 1.0, 4.0])
def test_interval_scale_gives_the_coverage(width: float) -> None:
    rng = np.random.default_rng(5)
    truth = rng.uniform(20, 80, 5000)
    age = truth + rng.normal(0, 5, 5000)
    low, high = age - 5 * width, age + 7 * width
    scale = fit_interval_scale(truth, age, low, high)
    low, high = age - scale * (age - low), age + scale * (high - age)
    assert interval_coverage(truth, low, high) == pytest.approx(0.8, abs=0.001)


def test_interval_scale_needs_faces() -> None:
    with pytest.raises(ValueError, match="2 faces are too few"):
        fit_interval_scale(floats(1, 2), floats(1, 2), floats(0, 0), floats(9, 9))


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
