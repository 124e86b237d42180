import json
import math
from typing import Any

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from lib.evaluation import metrics
from lib.evaluation.metrics import AllPredictions, bootstrap_interval, evaluate
from lib.evaluation.text_table import as_table
from lib.tasks.age_bands import AGE_BANDS, age_band
from lib.tasks.age_metrics import (
    age_metrics,
    epsilon_error,
    interval_coverage,
)
from lib.tasks.binary import calibration_error, reliability, roc_auc
from lib.tasks.gender import (
    GenderPredictions,
    gender_metrics,
)
from tests.made_predictions import predictions

NAN = float("nan")


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def genders(letters: str) -> np.ndarray:
    return np.array([{"f": "female", "m": "male"}.get(letter) for letter in letters], object)


def random_faces(count: int, seed: int = 0) -> AllPredictions:
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 101, count).astype(np.float64)
    gender = rng.choice(np.array(["female", "male"], object), count)
    predicted = age + rng.normal(1, 6, count)
    logits = np.where(gender == "female", 1, -1) + rng.normal(0, 1.5, count)
    return predictions(
        true_age=age,
        true_gender=gender,
        age=predicted,
        female=np.round(1 / (1 + np.exp(-logits)), 2),  # rounded, so that there are ties
        argmax=np.round(predicted),
        low=predicted - 8,
        high=predicted + 8,
        sigma=rng.uniform(1, 5, count),
        group=rng.choice(np.array(["a", "b", None], object), count),
    )


NO_FACE = random_faces(3).where(np.zeros(3, bool))


# Errors by hand: 0, +3, -4, +12.
HAND_TRUTH, HAND_AGE = floats(20, 30, 40, 50, 60, NAN), floats(20, 33, 36, 62, NAN, 7)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", 4),
        ("missing", 1),
        ("mae", 19 / 4),
        ("rmse", math.sqrt((9 + 16 + 144) / 4)),
        ("bias", 11 / 4),
        ("cs3", 2 / 4),
        ("cs5", 3 / 4),
        ("cs10", 3 / 4),
        ("median_predictor_mae", (15 + 5 + 5 + 15) / 4),
        ("epsilon_error", None),
    ],
)
def test_ages_by_hand(key: str, value: float | None) -> None:
    assert age_metrics(HAND_TRUTH, HAND_AGE)[key] == pytest.approx(value)


@pytest.mark.parametrize(
    ("mean", "age", "sigma", "value"),
    [
        ([30], [30], [3], 0),
        ([30], [33], [3], 1 - math.exp(-1 / 2)),
        ([30], [24], [3], 1 - math.exp(-2)),
        ([30, 30], [33, 24], [3, 3], 1 - (math.exp(-1 / 2) + math.exp(-2)) / 2),
        ([30, 30], [33, 50], [3, NAN], 1 - math.exp(-1 / 2)),
        ([30, 30], [30, 31], [0, 0], 1 / 2),
        ([30], [30], [NAN], None),
    ],
)
def test_epsilon_error_by_hand(
    mean: list[float], age: list[float], sigma: list[float], value: float | None
) -> None:
    assert epsilon_error(floats(*mean), floats(*age), floats(*sigma)) == pytest.approx(value)


def test_coverage_by_hand() -> None:
    truth = floats(10, 20, 30, 40, NAN)
    low, high = floats(10, 21, 20, NAN, 0), floats(12, 25, 30, 50, 9)
    assert interval_coverage(truth, low, high) == pytest.approx(2 / 3)


def test_bands() -> None:
    ages = [0, 2, 2.9, 3, 9, 10, 19, 20, 69, 70, 116, -1, NAN]
    expected = ["0-2"] * 3 + ["3-9"] * 2 + ["10-19"] * 2 + ["20-29", "60-69", "70+", "70+"]
    assert age_band(ages).tolist() == [*expected, None, None]


def test_genders_by_hand() -> None:
    """Four women, of whom one is called a man; two men, of whom one is called a woman."""
    figures = gender_metrics(
        GenderPredictions(genders("ffffmm?f"), floats(0.9, 0.8, 0.5, 0.3, 0.6, 0.1, 0.7, NAN))
    )
    assert figures.pop("roc_auc") == pytest.approx((2 + 2 + 1 + 1) / 8)
    assert figures.pop("ece") == pytest.approx((0.1 + 0.2 + 0.5 + 0.7 + 0.6 + 0.1) / 6)
    assert figures == {
        "count": 6,
        "missing": 1,
        "accuracy": pytest.approx(4 / 6),
        "confusion": {"female": {"female": 3, "male": 1}, "male": {"female": 1, "male": 1}},
        "female": {"count": 4, "precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4},
        "male": {"count": 2, "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2},
    }


def test_one_class_only() -> None:
    figures = gender_metrics(GenderPredictions(genders("ff"), floats(0.9, 0.8)))
    assert figures["accuracy"] == 1
    assert figures["roc_auc"] is None
    assert figures["male"] == {"count": 0, "precision": None, "recall": None, "f1": None}


@pytest.mark.parametrize("count", [20, 50, 2000])
def test_genders_as_scikit_learn_has_them(count: int) -> None:
    faces: Any = random_faces(count, seed=6).tasks["gender"]
    positive, score = faces.true == "female", faces.female
    called = np.where(score >= 0.5, "female", "male")
    truth = faces.true.astype(str)
    figures = gender_metrics(faces)

    assert figures["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, called))
    assert figures["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(positive, score))
    labels = ["female", "male"]
    report = sklearn.metrics.precision_recall_fscore_support(truth, called, labels=labels)
    for row, label in enumerate(labels):
        ours = [figures[label][key] for key in ("precision", "recall", "f1", "count")]
        np.testing.assert_allclose(ours, [column[row] for column in report])
    matrix = sklearn.metrics.confusion_matrix(truth, called, labels=labels)
    assert [[figures["confusion"][t][c] for c in labels] for t in labels] == matrix.tolist()


def test_ages_as_scikit_learn_has_them() -> None:
    faces: Any = random_faces(500).tasks["age"]
    figures = age_metrics(faces.true, faces.expected)
    pair = faces.true, faces.expected
    assert figures["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(*pair))
    assert figures["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(*pair))


def test_reliability_as_scikit_learn_has_it() -> None:
    faces: Any = random_faces(3000).tasks["gender"]
    positive, probability = faces.true == "female", faces.female
    ours = reliability(positive, probability)
    observed, predicted = sklearn.calibration.calibration_curve(positive, probability, n_bins=10)
    filled = ours.faces > 0
    np.testing.assert_allclose(ours.observed[filled], observed)
    np.testing.assert_allclose(ours.predicted[filled], predicted)
    assert ours.faces.sum() == 3000


def test_calibration_error_by_hand() -> None:
    """Bins 0.2-0.3 (mean 0.25, a half positive) and 0.9-1 (mean 0.95, all positive), 2 and 2."""
    positive = np.array([True, False, True, True])
    assert calibration_error(positive, floats(0.25, 0.25, 0.9, 1.0)) == pytest.approx(
        0.5 * 0.25 + 0.5 * 0.05
    )


@pytest.mark.parametrize("count", [0, 1])
def test_curves_of_nearly_nothing(count: int) -> None:
    positive, score = np.ones(count, bool), np.full(count, 0.5)
    assert roc_auc(positive, score) is None
    assert reliability(positive, score).faces.sum() == count


def test_bootstrap_is_that_of_the_mean() -> None:
    """The standard error of the mean is known here, and the mean nearly normal."""
    values = np.random.default_rng(3).normal(5, 2, 4000)
    interval = bootstrap_interval(values, resamples=2000)
    assert interval is not None
    reach = 1.96 * values.std() / math.sqrt(len(values))
    np.testing.assert_allclose(interval, values.mean() + np.array([-reach, reach]), atol=0.006)


def test_bootstrap_is_repeatable_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(100.0)
    whole = bootstrap_interval(values, seed=1)
    monkeypatch.setattr(metrics, "_BOOTSTRAP_BLOCK", 700)
    assert bootstrap_interval(values, seed=1) == whole
    assert bootstrap_interval(values, seed=2) != whole


@pytest.mark.parametrize(("values", "interval"), [([], None), ([4], [4, 4]), ([2, 2], [2, 2])])
def test_bootstrap_of_nearly_nothing(values: list[float], interval: list[float] | None) -> None:
    assert bootstrap_interval(values) == interval


def test_evaluate_breaks_everything_down() -> None:
    faces = random_faces(400)
    figures = evaluate(faces, resamples=50)
    assert list(figures["by_age_band"]) == list(AGE_BANDS)
    assert list(figures["by_gender"]) == ["female", "male"]
    assert list(figures["by_group"]) == ["a", "b"]
    for key in ("by_age_band", "by_gender"):
        assert sum(part["count"] for part in figures[key].values()) == figures["count"] == 400
    assert faces.group is not None
    group: Any = faces.where(faces.group == "b").tasks["age"]
    assert figures["by_group"]["b"]["age"]["mae"] == pytest.approx(
        np.abs(group.expected - group.true).mean()
    )
    assert figures["age_argmax"]["mae"] != figures["age"]["mae"]
    low, high = figures["confidence_95"]["age_mae"]
    assert low < figures["age"]["mae"] < high


def without_predictions(faces: Any) -> AllPredictions:
    nothing = np.full(len(faces), NAN)
    return predictions(faces.tasks["age"].true, faces.tasks["gender"].true, nothing, nothing)


@pytest.mark.parametrize(
    "faces",
    [random_faces(60), random_faces(1), NO_FACE, without_predictions(random_faces(5))],
    ids=["many", "one", "none", "no predictions"],
)
@pytest.mark.filterwarnings("error")
def test_figures_are_json_without_nan(faces: AllPredictions) -> None:
    figures = evaluate(faces, resamples=20)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert "nan" not in as_table(figures)


def test_table() -> None:
    figures: Any = evaluate(random_faces(400), resamples=50)
    text = as_table(figures)
    assert f"{figures['age']['mae']:.2f}" in text
    assert f"{figures['gender']['accuracy']:.1%}" in text
    for heading in ("by age", "by gender", "by group", "95% interval", "70+"):
        assert heading in text
    assert max(map(len, text.splitlines())) <= 100
