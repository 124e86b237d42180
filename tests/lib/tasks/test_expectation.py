import numpy as np
import pytest

from lib.tasks.expectation import (
    AGE_CLASSES,
    age_interval,
    distribution_sums,
    expected_age,
    mean_distributions,
)


def certain(age: int) -> np.ndarray:
    return np.eye(AGE_CLASSES, dtype=np.float32)[age]


@pytest.mark.parametrize(
    ("distribution", "age", "std"),
    [
        (certain(0), 0, 0),
        (certain(100), 100, 0),
        ((certain(20) + certain(40)) / 2, 30, 10),
        (np.full(AGE_CLASSES, 1 / AGE_CLASSES), 50, np.sqrt((AGE_CLASSES**2 - 1) / 12)),
        (certain(30) * 0.5, 30, 0),  # not quite a distribution: normalised
    ],
)
def test_by_hand(distribution: np.ndarray, age: float, std: float) -> None:
    found = expected_age(distribution[np.newaxis])
    assert found.age[0] == pytest.approx(age)
    assert found.std[0] == pytest.approx(std, abs=1e-5)


def test_expectation_is_not_the_most_likely_age() -> None:
    distribution = 0.6 * certain(20) + 0.4 * certain(60)
    assert expected_age([distribution]).age[0] == pytest.approx(36)


@pytest.mark.parametrize("shape", [(AGE_CLASSES,), (2, 100)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected probabilities of shape"):
        expected_age(np.ones(shape))


def test_interval_of_an_even_distribution_by_hand() -> None:
    """Ages -0.5 to 100.5, even: a tenth of 101 years is cut off at each end."""
    low, high = age_interval(np.full((1, AGE_CLASSES), 1.0), coverage=0.8)
    assert low[0] == pytest.approx(-0.5 + 10.1)
    assert high[0] == pytest.approx(100.5 - 10.1)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_interval_holds_the_age_and_grows_with_its_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    distributions = rng.dirichlet(np.full(AGE_CLASSES, 0.1), 200)
    age = expected_age(distributions).age
    low, high = age_interval(distributions, scale=scale)
    assert ((low >= 0) & (low <= age) & (age <= high) & (high <= 100)).all()
    plain_low, plain_high = age_interval(distributions)
    inside = (low > 0) & (high < 100) & (plain_low > 0) & (plain_high < 100)
    np.testing.assert_allclose((age - low)[inside], scale * (age - plain_low)[inside])
    np.testing.assert_allclose((high - age)[inside], scale * (plain_high - age)[inside])


def test_no_rows() -> None:
    nothing = np.zeros((0, AGE_CLASSES))
    assert len(expected_age(nothing).age) == len(age_interval(nothing)[0]) == 0


def test_mean_distributions() -> None:
    ages = np.array([1, 1, 2, np.nan, 7, 1.5])
    rows = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]], np.float32)
    expected = [[np.nan] * 3, [0.5, 0.5, 0], [0, 0, 1]]
    means = mean_distributions(distribution_sums(rows, ages))
    np.testing.assert_array_equal(means, expected)
