"""Ages that are known as bands: targets, figures, calibration, card."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lib.evaluation.metrics import AllPredictions, evaluate
from lib.tasks.age import AGE, AgePredictions
from lib.tasks.age_metrics import age_errors, age_metrics, in_band
from lib.tasks.age_targets import age_weights, smoothed_ages
from lib.tasks.calibration import SCALE_AGES, IntervalScales, scaled_interval
from lib.training.recipe import Recipe

RECIPE: Any = Recipe()
MIDDLES = np.array([24, 85, 35])
SPANS = np.array([[20, 29], [70, 100], [35, 35]])
LOW, HIGH = SPANS.T.astype(np.float64)


def test_a_band_is_spread_evenly_and_an_exact_age_smoothed() -> None:
    targets = AGE.targets(MIDDLES, RECIPE, SPANS)
    np.testing.assert_allclose(targets[0, 20:30], 0.1)
    np.testing.assert_allclose(targets[1, 70:], 1 / 31)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(targets[2:], smoothed_ages(MIDDLES[2:], RECIPE.age_sigma))
    np.testing.assert_array_equal(
        AGE.targets(MIDDLES, RECIPE), smoothed_ages(MIDDLES, RECIPE.age_sigma)
    )
    assert np.isfinite(age_weights(MIDDLES, 1.0)).all()


def test_errors_are_distances_from_the_band() -> None:
    ages = np.array([29.4, 66.0, 35.6])
    errors = age_errors(MIDDLES.astype(np.float64), ages, (LOW, HIGH))
    np.testing.assert_allclose(errors, [0.4, -4, 0.6])
    assert in_band(errors).tolist() == [True, False, False]
    figures = age_metrics(MIDDLES.astype(np.float64), ages, bands=(LOW, HIGH))
    assert figures["in_band"] == pytest.approx(1 / 3)
    assert figures["mae"] == pytest.approx(5 / 3)
    assert figures["cs5"] == 1
    # 35, the median, is 6 years from the first band and 35 from the second.
    assert figures["median_predictor_mae"] == pytest.approx(41 / 3)
    assert age_metrics(MIDDLES.astype(np.float64), ages)["in_band"] is None


def test_validation_counts_the_faces_in_their_band() -> None:
    probabilities = np.eye(101, dtype=np.float32)[[20, 64, 35]]
    sums = AGE.validation_sums(probabilities, MIDDLES, SPANS)
    assert sums == pytest.approx({"val_mae": 6, "val_cs5": 2, "val_in_band": 2})
    assert sums.keys() == AGE.validation_formats.keys()


def banded(spans: np.ndarray, ages: np.ndarray) -> AgePredictions:
    middles = spans.mean(axis=1) // 1
    low, high = spans.T.astype(np.float64)
    truth = {"age": middles, "age_low": low, "age_high": high}
    labels = {"age": ages, "age_low": ages - 5, "age_high": ages + 5}
    return AGE.predictions(pa.table(truth), pa.table(labels))


def card_names(predictions: AgePredictions) -> list[str]:
    metrics: dict[str, Any] = evaluate(AllPredictions({"age": predictions}), resamples=10)
    return [name for name, _ in AGE.card_rows(metrics)]


def test_a_model_of_bands_is_described_by_bands() -> None:
    spans = np.tile([[20, 29], [70, 100]], (20, 1))
    predictions = banded(spans, np.tile([25.0, 66.0], 20))
    metrics = evaluate(AllPredictions({"age": predictions}), resamples=10)
    assert metrics["age"]["in_band"] == 0.5
    assert metrics["by_age_band"]["20-29"]["age"]["in_band"] == 1
    assert metrics["age"]["interval_coverage"] is None  # nobody knows the ages
    assert len(metrics["confidence_95"]["age_in_band"]) == 2
    assert card_names(predictions)[0] == "age inside the true band"
    assert AGE.calibrate(predictions) == 1.0


def test_exact_ages_are_described_as_before() -> None:
    spans = np.repeat(np.arange(20, 60)[:, None], 2, axis=1)
    predictions = banded(spans, spans[:, 0] + 2.5)
    assert card_names(predictions)[0] == "age, mean absolute error"
    assert half_as_wide(predictions)


def test_the_few_exact_ages_among_bands_calibrate() -> None:
    spans = np.array([[20, 29]] * 30 + [[35, 35]] * 10)
    predictions = banded(spans, np.array([25.0] * 30 + [37.5] * 10))
    assert half_as_wide(predictions)


def half_as_wide(predictions: AgePredictions) -> bool:
    scales = IntervalScales.of(AGE.calibrate(predictions))
    age = np.arange(20.0, 60.0)
    low, high = scaled_interval(scales, age, age - 5, age + 5)
    return bool(np.allclose(high - low, 5, rtol=0.01))


def test_scales_of_earlier_cards_are_read() -> None:
    one_row = [0.5 + n / 10 for n in range(len(SCALE_AGES))]
    of_row = AGE.read_factor(one_row)
    assert of_row == (tuple(one_row), (1.0,) * len(SCALE_AGES), tuple(one_row))
    assert AGE.read_factor(json.loads(json.dumps(of_row))) == of_row
    assert AGE.read_factor(2) == 2.0


ROW = [1.0] * len(SCALE_AGES)


@pytest.mark.parametrize("value", [[], [1.0, 2.0], [ROW, ROW], [ROW, ROW, ROW[1:]], "wide"])
def test_other_scales_are_refused(value: object) -> None:
    with pytest.raises(
        ValueError, match="age_interval_scale must be one or three rows of 21 numbers"
    ):
        AGE.read_factor(value)
