import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from lib.models.bundle import CARD
from lib.models.card_text import as_markdown
from lib.models.certainty import (
    Certainty,
    certainty_figures,
    certainty_table,
    least_score,
    most_spread,
    validated_least,
    validated_most,
)
from lib.models.model_card import ModelCard

RULE = Certainty(0.7, 12.0, 30.0, 50.0)


def test_a_face_beyond_any_cut_is_uncertain() -> None:
    """And what is unknown is beyond none: crops have no pose, and models may not know a task."""
    nan = np.nan
    rows = np.array(
        [
            (0.7, 12, 30, 50), (0.69, 12, 30, 50), (0.7, 12.1, 30, 50), (0.7, 12, 29.9, 50),
            (0.7, 12, 30, 50.1), (nan, nan, nan, nan), (nan, 99, nan, nan),
        ]
    )  # fmt: skip
    assert RULE.certain(*rows.T).tolist() == [True, *[False] * 4, True, False]
    assert Certainty().certain(*rows.T).all()


def test_the_gender_is_cut_where_too_few_are_right() -> None:
    """Right as often as the score says: three of four at 0.75."""
    rng = np.random.default_rng(0)
    score = rng.uniform(0.5, 1, 20_000)
    right = (rng.random(20_000) < score).astype(float)
    assert least_score(score, right) == pytest.approx(0.75, abs=0.03)
    assert least_score(score, np.ones(20_000)) is None
    assert least_score(score, np.zeros(20_000)) == score.max()
    assert least_score(score[:50], right[:50]) is None
    unknown = np.full(20_000, np.nan)
    assert least_score(np.r_[score, score], np.r_[right, unknown]) == least_score(score, right)


def test_the_spread_is_cut_where_ages_are_too_far_off() -> None:
    rng = np.random.default_rng(0)
    std = rng.uniform(1, 20, 20_000)
    error = rng.exponential(std)  # its mean is the spread
    assert most_spread(std, error) == pytest.approx(10, abs=0.7)
    assert most_spread(std, np.zeros(20_000)) is None


def test_what_validation_did_not_see_is_beyond() -> None:
    values = np.r_[np.arange(1000.0), np.nan]
    assert validated_least(values) == pytest.approx(10, abs=0.1)
    assert validated_most(values) == pytest.approx(989, abs=0.1)
    assert validated_least(values[:100]) is None
    assert validated_most(np.full(1000, np.nan)) is None


def test_figures_of_both_kinds() -> None:
    certain = np.array([True, True, True, False])
    figures = certainty_figures(certain, np.array([1, 3, np.nan, 9]), np.array([1, 0, 1, np.nan]))
    assert figures == {
        "share": 0.75,
        "certain": {"count": 3, "age_mae": 2, "gender_accuracy": pytest.approx(2 / 3)},
        "uncertain": {"count": 1, "age_mae": 9, "gender_accuracy": None},
    }
    assert certainty_table(figures).rows == [
        ("certain", "3", "75.0%", "2.00", "66.7%"), ("uncertain", "1", "25.0%", "9.00", "-"),
    ]  # fmt: skip


def test_it_is_read_as_it_was_written_and_said() -> None:
    for rule in (RULE, Certainty(least_gender_score=0.7), Certainty()):
        assert Certainty.from_dict(json.loads(json.dumps(asdict(rule)))) == rule
    assert str(RULE).startswith("a gender_score of at least 0.70, an age_std of at most 12.0 years")
    assert str(Certainty(least_sharpness=31.4)) == "a sharpness of at least 31"
    with pytest.raises(ValueError, match="could not convert"):
        Certainty.from_dict({"most_turned": "far"})


def embedded() -> ModelCard:
    return ModelCard.from_dict(json.loads(Path("models/default", CARD).read_text("utf-8")))


def test_the_embedded_card_has_both_rules_and_what_they_give() -> None:
    card = embedded()
    assert card.under_age is not None
    strict, loose = card.under_age.operating_points
    assert (strict.allowed, loose.allowed) == (0.01, 0.05)
    assert 0 < strict.cut < loose.cut < 0.5
    assert card.certainty is not None
    assert None not in asdict(card.certainty).values()
    text = as_markdown(card)
    assert f"| faces | minors | adults | missed at {strict.cut:.3f} |" in text
    for name in (
        "| gender female |",
        "| group 4 |",
        "| age 18-20 |",
        "| age 30+ |",
        "| uncertain |",
    ):
        assert name in text


def test_a_card_of_before_is_read_and_described_without_them() -> None:
    card = embedded()
    values = card.to_dict()
    del values["under_age"], values["certainty"]
    assert values["metrics"]["test"].pop("under_18")
    assert values["metrics"]["test"].pop("certainty")
    before = ModelCard.from_dict(json.loads(json.dumps(values)))
    assert (before.under_age, before.certainty) == (None, None)
    assert {"under_age", "certainty"}.isdisjoint(before.to_dict())
    text = as_markdown(before)
    assert "Minors" not in text
    assert "**Certain**" not in text
    assert text.replace("\n\n", "\n").count("**Weak where**") == 1
    assert as_markdown(replace(card, certainty=None)).count("**Certain**") == 0
