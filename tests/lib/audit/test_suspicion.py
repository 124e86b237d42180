"""What counts as suspect: made-up opinions about labels with planted faults."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lib.audit.faces import UNKNOWN, FaceLabels
from lib.audit.look import NOT_LOOKED, UNREADABLE
from lib.audit.opinions import OPINION_SCHEMA, Opinions
from lib.audit.suspicion import (
    AGE,
    DUPLICATE,
    GENDER,
    NO_FACE,
    PRIOR,
    SEVERAL,
    age_odds,
    conflicting,
    gender_bounds,
    gender_odds,
    suspicion,
)
from lib.tasks.expectation import age_density, age_interval, expected_age

FACES = 4000


def labels(female: Any, age: Any, high: Any = None) -> FaceLabels:
    low = np.asarray(age, np.int16)
    return FaceLabels(
        np.asarray(female, np.int8),
        low,
        low if high is None else np.asarray(high, np.int16),
        np.zeros(len(low), np.int8),
        "",
    )


def opinion(of: FaceLabels, **columns: Any) -> pa.Table:
    """About all faces; what is not given is unknown."""
    n = len(of)
    usual: dict[str, Any] = {name: np.full(n, np.nan, np.float32) for name in OPINION_SCHEMA.names}
    usual |= {"place": np.arange(n), "picture": np.arange(n), "faces_found": np.ones(n, np.int16)}
    return pa.table(usual | columns, schema=OPINION_SCHEMA)


def about_ages(means: np.ndarray, std: np.ndarray, of: FaceLabels) -> dict[str, np.ndarray]:
    years = np.arange(101)
    p = np.exp(-((years - means[:, None]) ** 2) / (2 * std[:, None] ** 2))
    age, spread = expected_age(p)
    low, high = age_interval(p, 0.99)
    density = age_density(p, of.age_low, of.age_high)
    columns = {
        "age": age,
        "age_std": spread,
        "age_low": low,
        "age_high": high,
        "age_density": density,
    }
    return {name: column.astype(np.float32) for name, column in columns.items()}


@pytest.fixture(scope="module")
def planted() -> tuple[FaceLabels, Opinions, np.ndarray, np.ndarray]:
    """Models that err by what they say they do, and 3% of each label changed after that."""
    rng = np.random.default_rng(3)
    age = rng.integers(5, 90, FACES)
    std = 2 + age / 12
    said = np.clip(age + rng.normal(0, std), 0, 100)
    is_female = rng.random(FACES) < 0.5
    sure = rng.beta(60, 1.5, FACES)
    right = rng.random(FACES) < sure
    female = np.where(is_female == right, sure, 1 - sure)
    flipped, moved = rng.random((2, FACES)) < 0.03
    shift = rng.integers(25, 40, FACES) * np.where(age > 45, -1, 1)
    given = labels(is_female ^ flipped, np.where(moved, age + shift, age))
    opinions = Opinions.none(FACES)
    columns = about_ages(said, std, given)
    opinions.add(opinion(given, female=female.astype(np.float32), **columns))
    return given, opinions, flipped, moved


def test_planted_faults_are_the_most_suspect(
    planted: tuple[FaceLabels, Opinions, np.ndarray, np.ndarray],
) -> None:
    given, opinions, flipped, moved = planted
    judged = suspicion(given, opinions)
    assert sorted(judged.rank) == list(range(1, FACES + 1))
    looked_at = judged.rank <= 0.08 * FACES
    assert looked_at[moved].mean() > 0.9
    assert looked_at[flipped].mean() > 0.8
    assert judged.kinds[AGE][moved].mean() > 0.9
    assert judged.kinds[AGE][~moved].mean() < 0.02
    assert judged.kinds[GENDER][flipped].mean() > 0.5
    assert judged.kinds[GENDER][~flipped].mean() < 0.05
    assert judged.suspect.sum() == (judged.kinds[AGE] | judged.kinds[GENDER]).sum()
    in_order = judged.probability[np.argsort(judged.rank)]
    assert (np.diff(in_order) <= 0).all()
    assert 0 <= in_order[-1] < 0.05 < 0.99 < in_order[0] <= 1


def test_the_most_suspect_of_a_kind_come_first(
    planted: tuple[FaceLabels, Opinions, np.ndarray, np.ndarray],
) -> None:
    given, opinions, _, _ = planted
    judged = suspicion(given, opinions)
    places = judged.most_suspect(AGE, 20)
    assert len(places) == 20
    assert judged.kinds[AGE][places].all()
    assert (np.diff(judged.rank[places]) > 0).all()
    others = np.setdiff1d(np.flatnonzero(judged.kinds[AGE]), places)
    assert judged.rank[others].min() > judged.rank[places].max()


def test_the_odds_follow_the_rule_of_bayes() -> None:
    """A wrong gender is one of two, a wrong age one of 101."""
    prior = PRIOR / (1 - PRIOR)
    odds = gender_odds(np.array([1, 0, UNKNOWN], np.int8), np.array([0.1, 0.1, 0.1]))
    np.testing.assert_allclose(np.exp(odds), [prior * 0.5 / 0.1, prior * 0.5 / 0.9, np.nan])
    of = labels([1] * 3, [20, 60, UNKNOWN], [20, 69, UNKNOWN])
    odds = age_odds(of, np.array([0.1, 0.005, 0.1]))
    expected = [prior / 101 / 0.1, prior / 101 / 0.005, np.nan]
    np.testing.assert_allclose(np.exp(odds), expected)


def test_a_band_contradicts_only_where_it_ends_outside() -> None:
    of = labels([1] * 3, [20, 20, 60], [29, 49, 69])
    columns = {"age": 40.0, "age_std": 3.0, "age_low": 32.0, "age_high": 48.0, "age_density": 0.01}
    opinions = Opinions.none(3)
    opinions.add(opinion(of, **{n: np.full(3, v, np.float32) for n, v in columns.items()}))
    assert suspicion(of, opinions).kinds[AGE].tolist() == [True, False, True]


def test_a_gender_contradicts_from_the_mean_certainty_of_the_other_label() -> None:
    labelled = np.array([1, 1, 0, 0, 1, UNKNOWN], np.int8)
    female = np.array([0.9, 0.7, 0.2, 0.85, np.nan, 0.99])
    bounds = gender_bounds(labelled, female)
    np.testing.assert_allclose(bounds, [0.8, (0.8 + 0.15) / 2])
    of = labels(labelled, [30] * 6)
    opinions = Opinions.none(6)
    opinions.add(opinion(of, female=female.astype(np.float32)))
    expected = [False, False, False, True, False, False]
    assert suspicion(of, opinions).kinds[GENDER].tolist() == expected


def test_models_that_cannot_tell_genders_contradict_none() -> None:
    of = labels([1, 0, 1, 0], [30] * 4)
    opinions = Opinions.none(4)
    opinions.add(opinion(of, female=np.full(4, 0.5)))
    assert not suspicion(of, opinions).suspect.any()
    opinions = Opinions.none(4)
    opinions.add(opinion(of, female=np.full(4, 0.4)))
    assert suspicion(of, opinions).kinds[GENDER].tolist() == [True, False, True, False]


def test_what_nobody_knows_is_not_suspect() -> None:
    of = labels([UNKNOWN, 1], [UNKNOWN, 20])
    opinions = Opinions.none(2)
    opinions.add(opinion(of, female=np.array([0.9, np.nan], np.float32)))
    judged = suspicion(of, opinions)
    assert not judged.suspect.any()
    np.testing.assert_array_equal(judged.probability, 0)


def test_equal_pictures_with_other_labels() -> None:
    pictures = np.array([7, 7, 8, 8, 9, 9, 5])
    of = labels([1, 0, 1, 1, 1, 1, 1], [20, 20, 30, 30, 40, 41, 20])
    assert conflicting(pictures, of).tolist() == [True, True, False, False, True, True, False]


def test_faults_of_pictures() -> None:
    of = labels([1] * 5, [30] * 5)
    found = np.array([1, 0, UNREADABLE, 2, NOT_LOOKED], np.int16)
    opinions = Opinions.none(5)
    opinions.add(opinion(of, faces_found=found, picture=np.array([1, 2, 3, 4, 1])))
    judged = suspicion(of, opinions)
    assert judged.kinds[NO_FACE].tolist() == [False, True, True, False, False]
    assert judged.kinds[SEVERAL].tolist() == [False, False, False, True, False]
    assert not judged.kinds[DUPLICATE].any()
    np.testing.assert_allclose(judged.probability, [0, 0.5, 0.5, 0.5, 0], atol=1e-6)


def test_models_are_averaged_by_task() -> None:
    """One knows both tasks, another one the gender alone."""
    of = labels([1, 1], [30, 30])
    opinions = Opinions.none(2)
    opinions.add(opinion(of, female=[0.2, 0.4], age=[30, 40], faces_found=[2, 1]))
    opinions.add(opinion(of, female=[0.6, np.nan], faces_found=[NOT_LOOKED] * 2))
    np.testing.assert_allclose(opinions.mean("female"), [0.4, 0.4], rtol=1e-6)
    np.testing.assert_allclose(opinions.mean("age"), [30, 40])
    assert np.isnan(opinions.mean("age_low")).all()
    assert opinions.faces_found.tolist() == [2, 1]


def test_the_state_of_a_face_is_small() -> None:
    """460,723 faces take less than 50 MB, whatever their pictures are."""
    opinions = Opinions.none(1000)
    arrays: list[Any] = [opinions.picture, opinions.faces_found, *opinions.sums.values()]
    arrays += opinions.counts.values()
    of = labels([1] * 1000, [30] * 1000)
    judged = suspicion(of, opinions)
    arrays += [of.female, of.age_low, of.age_high, of.folds]
    arrays += [judged.probability, judged.rank, *judged.kinds.values()]
    assert sum(array.nbytes for array in arrays) <= 100 * 1000
