from typing import Any

import numpy as np
import pytest

from lib.evaluation.metrics import Predictions, evaluate
from lib.models.model_card import as_markdown


def card(**training: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    ages = np.repeat([5.0, 25.0, 75.0], 100)
    error = np.repeat([0.5, 2.0, 9.0], 100) * rng.choice([-1, 1], 300)
    female = np.where(rng.random(300) < 0.9, 0.95, 0.05)
    predictions = Predictions(
        true_age=ages, age=ages + error, true_gender=np.full(300, "female", object), female=female,
        age_low=ages - 10, age_high=ages + 10, group=np.full(300, "asian", object),
    )  # fmt: skip
    return {
        "name": "tiny-32",
        "crop": {"size": 32},
        "code": "commit 123",
        "training": {
            "faces": {"train": 12345, "val": 17},
            "source": "UTKFace",
            "terms": "for research",
            "backbone": "compact",
            "weights": None,
            "teachers": [],
            **training,
        },
        "metrics": {"test": evaluate(predictions)},
    }


def test_it_says_what_was_measured() -> None:
    text = as_markdown(card())
    assert "12,345 faces of UTKFace, for research" in text
    assert "random weights" in text
    assert "| age, mean absolute error | 3.83 (" in text
    assert "| age 3-9 | 100 | 0.50 (0.50 to 0.50) |" in text
    assert "| group asian | 300 | 3.83 (" in text
    assert "age 10-19" not in text  # nobody
    assert "**Weak where** age is asked of people of 70+ years;" in text
    assert "{" not in text


def test_what_the_model_does_not_tell_is_not_there() -> None:
    told = card()
    part = told["metrics"]["test"]
    unknown = np.full(300, np.nan)
    told["metrics"]["test"] = evaluate(
        Predictions(
            true_age=np.full(300, 20.0),
            age=unknown,
            true_gender=np.full(300, "male", object),
            female=np.full(300, 0.2),
        )
    )
    text = as_markdown(told)
    assert text.startswith("# tiny-32\n\nGender, from crops")
    assert "mean absolute error |" not in text.split("| faces |")[0]
    assert part["age"]["mae"]


def test_it_names_the_weights_that_training_began_with() -> None:
    text = as_markdown(card(weights="trunk.h5", weights_sha256="ab" * 32))
    assert "the weights `trunk.h5` (sha256 abababababababab…)" in " ".join(text.split())


def test_it_names_the_training_before() -> None:
    before = {
        "faces": {"train": 999}, "source": "WIKI", "recipe": {"epochs": 7},
        "weights": "imagenet.h5", "weights_sha256": "cd" * 32,
    }  # fmt: skip
    text = as_markdown(
        card(weights="trunk.keras", weights_sha256="ab" * 32, weights_training=before)
    )
    words = " ".join(text.split())
    assert (
        "for 7 epochs on 999 faces of WIKI, which in turn began with the weights `imagenet.h5`"
        in words
    )
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 106


def test_it_names_the_models_it_learnt_from() -> None:
    training = {"faces": {"train": 999}, "source": "WIKI", "recipe": {"epochs": 7}, "weights": None}
    teachers = [
        {"name": "large", "sha256": "ab" * 32, "training": training},
        {"name": "bought", "sha256": "cd" * 32, "training": None},
    ]
    words = " ".join(as_markdown(card(teachers=teachers)).split())
    assert (
        "Beside the labels it learnt the answers of large (sha256 abababababababab…), trained for 7 "
        "epochs on 999 faces of WIKI, which in turn began with random weights. And those of bought "
        "(sha256 cdcdcdcdcdcdcdcd…). Code: commit 123."
    ) in words


def test_a_card_without_figures_is_no_card() -> None:
    with pytest.raises(KeyError, match="metrics"):
        as_markdown({"name": "tiny"})
