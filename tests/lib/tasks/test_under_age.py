import json
from dataclasses import asdict

import numpy as np
import pytest

from lib.common.errors import UserError
from lib.tasks.calibration import logits
from lib.tasks.under_age import (
    ADULT_AGE,
    OperatingPoint,
    UnderAge,
    check_threshold,
    fit_platt,
    fit_under_age,
    operating_points,
    p_under,
    under_age_figures,
    under_age_tables,
)

YEARS = np.arange(101)


def distributions(means: np.ndarray, std: float = 4.0) -> np.ndarray:
    """Discrete normal distributions over the ages, float32 (n, 101)."""
    p = np.exp(-((YEARS - means[:, np.newaxis]) ** 2) / (2 * std**2))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def faces(count: int, too_old: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distributions, and true whole years, of a model whose ages are too high by some years."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 60, count)
    means = true + rng.normal(0, 4, count) + too_old
    return distributions(means), true.astype(np.float64)


def test_it_is_the_sum_of_the_classes_below() -> None:
    p = np.zeros((3, 101), np.float32)
    p[0, 17], p[1, 18], p[2, [10, 40]] = 1, 1, (0.25, 0.75)
    assert p_under(p, 18, None).tolist() == [1, 0, 0.25]
    assert p_under(p, 41, None).tolist() == [1, 1, 1]
    assert np.isnan(p_under(np.full((1, 101), np.nan, np.float32), 18, None)).all()


def test_a_known_line_is_found_again() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, 40_000)
    positive = rng.random(40_000) < 1 / (1 + np.exp(-(0.6 * scores - 1.5)))
    slope, offset = fit_platt(scores, positive)
    assert slope == pytest.approx(0.6, abs=0.03)
    assert offset == pytest.approx(-1.5, abs=0.06)


def test_a_perfect_separation_has_a_finite_slope() -> None:
    scores = np.r_[np.full(50, -3.0), np.full(50, 3.0)]
    slope, offset = fit_platt(scores, scores > 0)
    assert 0 < slope < 5
    assert abs(offset) < 0.1


@pytest.mark.parametrize("threshold", [16, 18, 20, 30, 35])
def test_calibration_undoes_a_model_that_says_all_are_older(threshold: int) -> None:
    """Also between the fitted ages; what is predicted is what is observed, on other faces."""
    calibration = fit_under_age(*spans(*faces(20_000, too_old=3.0)))
    assert calibration is not None
    probabilities, true = faces(20_000, too_old=3.0, seed=1)
    near = np.abs(true - threshold) <= 10
    observed = (true < threshold)[near].mean()
    before = p_under(probabilities, threshold, None)[near].mean()
    after = p_under(probabilities, threshold, calibration)[near].mean()
    assert before < observed - 0.08
    assert after == pytest.approx(observed, abs=0.02)


def spans(probabilities: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return probabilities, true, true


def test_bands_count_where_they_are_on_one_side() -> None:
    """Bands across the threshold say nothing; with them alone nothing is fitted."""
    probabilities, true = faces(2000)
    wide = fit_under_age(probabilities, np.zeros(2000), np.full(2000, 100.0))
    assert wide is None
    exact = true < 40  # the others are known as 40 to 100
    mixed = fit_under_age(probabilities, np.where(exact, true, 40.0), np.where(exact, true, 100.0))
    assert mixed is not None
    assert max(mixed.ages) == 40
    alone = fit_under_age(probabilities, true, true)
    assert alone is not None
    assert mixed.slopes[:3] == pytest.approx(alone.slopes[:3])


def test_few_minors_give_no_operating_points() -> None:
    probabilities, true = faces(2000)
    some = np.flatnonzero((true >= ADULT_AGE) | (np.cumsum(true < ADULT_AGE) <= 5))
    calibration = fit_under_age(*spans(probabilities[some], true[some]))
    assert calibration is not None
    assert calibration.operating_points == ()
    assert min(calibration.ages) >= ADULT_AGE


def test_operating_points_miss_no_more_than_they_may() -> None:
    of_minors = np.linspace(0.001, 1, 1000)
    strict, loose = operating_points(of_minors)
    for point, missed in ((strict, 10), (loose, 50)):
        assert (of_minors.astype(np.float32) < point.cut).sum() == missed
    assert operating_points(np.array([0.3, 0.9]))[0].cut == pytest.approx(0.3)


def test_what_the_points_cost_whom() -> None:
    """Ten minors, of whom one is missed; adults of 19, 22, 27 and 50, of whom the first two are sent."""
    true = np.r_[np.full(10, 12.0), 19, 22, 27, 50]
    score = np.r_[0.1, np.full(9, 0.9), 0.6, 0.5, 0.2, np.nan]
    gender = np.array(["female"] * 10 + ["male"] * 4, object)
    group = np.full(14, None, object)
    figures = under_age_figures(
        score, true, true, {"gender": gender, "group": group}, [OperatingPoint(0.1, 0.4)]
    )
    assert (figures["count"], figures["minors"]) == (13, 10)
    (point,) = figures["operating_points"]
    assert point["parts"]["all"] == {
        "minors": 10, "adults": 3, "missed": 0.1, "second_look": pytest.approx(2 / 3)
    }  # fmt: skip
    assert point["parts"]["gender male"]["missed"] is None
    assert [point["parts"][f"age {age}"]["second_look"] for age in ("18-20", "21-24", "25-29")] == [
        1, 1, 0
    ]  # fmt: skip
    assert "age 30+" not in point["parts"]  # its face has no prediction
    summary, table = under_age_tables(figures)
    assert summary.rows[1] == ("minors", "10")
    assert table.columns[3:] == ("missed at 0.400", "sent at 0.400")
    assert table.rows[0] == ("all", "10", "3", "10.0%", "66.7%")


def test_it_is_read_as_it_was_written() -> None:
    calibration = fit_under_age(*spans(*faces(3000)))
    assert calibration is not None
    assert UnderAge.from_dict(json.loads(json.dumps(asdict(calibration)))) == calibration
    with pytest.raises(ValueError, match="lists of the same length"):
        UnderAge.from_dict(
            {"ages": [18, 21], "slopes": [1], "offsets": [0, 0], "operating_points": []}
        )


def test_logits_of_certainties_are_finite() -> None:
    assert np.isfinite(logits(np.array([0.0, 1.0]))).all()


@pytest.mark.parametrize("threshold", [0, -3, 101])
def test_what_is_no_threshold_is_refused(threshold: int) -> None:
    with pytest.raises(UserError, match=rf"--threshold must be in 1..100, not {threshold}$"):
        check_threshold(threshold)
