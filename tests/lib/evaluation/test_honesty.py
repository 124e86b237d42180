"""What is fitted on validation faces and measured on test faces, from made-up labels."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lib.datasets.labelled_faces import LabelledFaces
from lib.evaluation.comparison import Comparison
from lib.evaluation.honesty import fit_certainty, fit_under, honesty, turns_of
from lib.evaluation.metrics import AllPredictions, evaluate
from lib.evaluation.text_table import as_table
from lib.models.certainty import Certainty
from lib.storage.folder import folder
from lib.tasks.expectation import expected_age
from lib.tasks.under_age import OperatingPoint, p_under
from tests.made_faces import make_faces

COUNT = 4000


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Faces of 0 to 60 years whose ages spread the more the older; genders as sure as they say."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 60, COUNT).astype(np.float64)
    spread = rng.uniform(2, 16, COUNT)
    means = true + rng.normal(0, spread)
    p = np.exp(-((np.arange(101) - means[:, np.newaxis]) ** 2) / (2 * spread[:, np.newaxis] ** 2))
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    age, std = expected_age(p)
    score = rng.uniform(0.5, 1, COUNT)
    right = rng.random(COUNT) < score
    called = rng.choice(["female", "male"], COUNT)
    other = np.where(called == "female", "male", "female")
    labels = {
        "age": age, "age_std": std, "age_low": age - 5, "age_high": age + 5,
        "p_under_18": p_under(p, 18, None), "gender": called, "gender_score": score,
        "sharpness": np.arange(1, COUNT + 1.0), "certain": score >= 0.75,
        "age_distribution": pa.FixedSizeListArray.from_arrays(p.ravel(), 101),
    }  # fmt: skip
    truth = {
        "name": [str(n) for n in range(COUNT)], "age": true,
        "gender": np.where(right, called, other), "group": ["a", None] * (COUNT // 2),
    }  # fmt: skip
    return Comparison(pa.table(truth), pa.table(labels), {})


def without(comparison: Comparison, *columns: str) -> Comparison:
    labels = comparison.labels
    for name in columns:
        position = labels.column_names.index(name)
        nothing = pa.nulls(COUNT, labels.schema.field(name).type)
        labels = labels.set_column(position, name, nothing)
    return Comparison(comparison.truth, labels, {})


def rule_of(comparison: Comparison, temperature: float, turns: np.ndarray) -> Certainty:
    rule = fit_certainty(comparison, temperature, turns)
    assert rule is not None
    return rule


def test_the_rule_follows_what_is_right(comparison: Comparison) -> None:
    rule = rule_of(comparison, 1.0, np.arange(1000.0))
    assert rule.least_gender_score == pytest.approx(0.75, abs=0.05)
    # The mean distance of a normal distribution is 0.8 of its standard deviation: 10 years at 12.5.
    assert rule.most_age_std == pytest.approx(12.5, abs=1.5)
    assert rule.least_sharpness == pytest.approx(40, abs=1)
    assert rule.most_turned == pytest.approx(990, abs=1)


def test_the_rule_is_for_calibrated_scores(comparison: Comparison) -> None:
    """A temperature of 2 makes 0.9 of 0.9878; three of four are right at 0.75, which becomes 0.634."""
    warmer = rule_of(comparison, 2.0, np.zeros(0)).least_gender_score
    assert warmer == pytest.approx(0.634, abs=0.03)


def test_a_task_that_the_model_does_not_know_has_no_cut(comparison: Comparison) -> None:
    rule = rule_of(without(comparison, "gender", "gender_score"), 1.0, np.zeros(0))
    assert (rule.least_gender_score, rule.most_turned) == (None, None)
    assert rule.most_age_std is not None


def test_few_faces_choose_no_rule(comparison: Comparison) -> None:
    """With a rule of no cuts every face would be called certain."""
    few = Comparison(comparison.truth.slice(0, 150), comparison.labels.slice(0, 150), {})
    assert fit_certainty(few, 1.0, np.arange(150.0)) is None


def test_minors_are_calibrated_and_cost_what_they_cost(comparison: Comparison) -> None:
    calibration = fit_under(comparison)
    assert calibration is not None
    figures = honesty(comparison, [OperatingPoint(0.05, 0.1)])
    (point,) = figures["under_18"]["operating_points"]
    scores = np.asarray(comparison.labels["p_under_18"])
    true = np.asarray(comparison.truth["age"])
    assert point["parts"]["all"]["missed"] == pytest.approx((scores[true < 18] < 0.1).mean())
    assert {"gender female", "gender male", "group a", "age 30+"} <= point["parts"].keys()
    assert point["parts"]["group a"]["adults"] == (true[::2] >= 18).sum()
    assert fit_under(without(comparison, "age_distribution")) is None


def test_certain_faces_are_better(comparison: Comparison) -> None:
    figures = honesty(comparison)["certainty"]
    score = np.asarray(comparison.labels["gender_score"])
    assert figures["share"] == pytest.approx((score >= 0.75).mean())
    assert figures["certain"]["gender_accuracy"] > 0.85 > 0.65
    assert figures["uncertain"]["gender_accuracy"] < 0.65


def test_the_tables_show_both(comparison: Comparison) -> None:
    metrics = evaluate(AllPredictions.of(comparison), resamples=10)
    text = as_table(metrics | honesty(comparison, [OperatingPoint(0.05, 0.1)]))
    for words in ("p_under_18", "missed at 0.100", "sent at 0.100", "age 18-20", "uncertain"):
        assert words in text
    assert "uncertain" not in as_table(metrics)


def test_labels_of_before_say_nothing_of_it(comparison: Comparison) -> None:
    """Of an earlier version, or by a model without ages and without a rule."""
    old = comparison.labels.drop_columns(["certain", "p_under_18"])
    assert honesty(Comparison(comparison.truth, old, {})) == {}
    assert honesty(without(comparison, "certain", "p_under_18")) == {}


def test_crops_without_a_face_have_no_pose(tmp_path: Path) -> None:
    faces = LabelledFaces(folder(make_faces(tmp_path, train=1, val=8)), "val")
    assert turns_of(faces, 8).shape == (0,)


@pytest.mark.data
def test_chips_look_at_the_viewer(tmp_path: Path, shared_data: Path) -> None:
    """Half of UTKFace is turned by less than 20 degrees."""
    import tarfile

    import pyarrow.parquet as pq

    with tarfile.open(shared_data / "utkface" / "utkface-00.tar") as tar:
        members = [member for member in tar if member.isfile()][:30]
        images = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    (tmp_path / "split=val").mkdir()
    pq.write_table(pa.table({"image": images}), tmp_path / "split=val" / "part-0.parquet")
    faces = LabelledFaces(folder(tmp_path), "val")
    turns = turns_of(faces, 30)
    assert len(turns) >= 27
    assert np.median(turns) < 20
    np.testing.assert_array_equal(turns_of(faces, 30, most=1), turns[:1])
