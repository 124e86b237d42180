import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.evaluation.metrics import evaluate
from lib.models.bundle import CARD
from lib.models.card_text import as_markdown
from lib.models.model_card import ModelCard, Teacher, Training
from lib.network_input import CropSpec, Pixels
from tests.made_predictions import predictions

DEFAULT = Path("models/default")


def card(**training: Any) -> ModelCard:
    rng = np.random.default_rng(0)
    ages = np.repeat([5.0, 25.0, 75.0], 100)
    error = np.repeat([0.5, 2.0, 9.0], 100) * rng.choice([-1, 1], 300)
    female = np.where(rng.random(300) < 0.9, 0.95, 0.05)
    made = predictions(
        true_age=ages, age=ages + error, true_gender=np.full(300, "female", object), female=female,
        low=ages - 10, high=ages + 10, group=np.full(300, "asian", object),
    )  # fmt: skip
    return ModelCard(
        "tiny-32",
        CropSpec(32, "box"),
        Pixels(),
        code="commit 123",
        training=Training(
            "UTKFace",
            "for research",
            faces={"train": 12345, "val": 17},
            backbone="compact",
            **training,
        ),
        metrics={"test": evaluate(made)},
    )


def test_the_embedded_card_is_read_and_written() -> None:
    """Keys that no reader knows are left out, and nothing else."""
    values = json.loads((DEFAULT / CARD).read_text("utf-8"))
    embedded = ModelCard.from_dict(values)
    written = json.loads(json.dumps(embedded.to_dict()))
    assert ModelCard.from_dict(written) == embedded
    assert written.keys() == values.keys()
    for name in values.keys() - {"training"}:
        assert written[name] == values[name]
    assert embedded.training is not None
    assert (embedded.training.source, embedded.training.terms) == (
        "UTKFace (https://susanqq.github.io/UTKFace/)", "for non-commercial research only"
    )  # fmt: skip
    for name in values["training"].keys() - {"split", "teachers", "weights_training"}:
        assert written["training"][name] == values["training"][name]
    before, teacher = embedded.training.teachers
    assert (before.name, teacher.name) == ("mobilenet-96", "efficientnet-lite0-96")
    assert teacher.training is not None
    large, heads = teacher.training.teachers
    assert (large.name, heads.name) == ("dlib-resnet-144", "efficientnet-lite0-96")
    assert heads.training is not None
    assert heads.training.weights_training is not None
    assert heads.training.weights_training.recipe["mixup"] == 0.2


def test_the_embedded_card_for_people_is_that_of_its_values() -> None:
    embedded = ModelCard.from_dict(json.loads((DEFAULT / CARD).read_text("utf-8")))
    assert as_markdown(embedded) == (DEFAULT / "CARD.md").read_text("utf-8")


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
    unknown = np.full(300, np.nan)
    metrics = evaluate(
        predictions(
            true_age=np.full(300, 20.0),
            age=unknown,
            true_gender=np.full(300, "male", object),
            female=np.full(300, 0.2),
        )
    )
    text = as_markdown(replace(card(), metrics={"test": metrics}))
    assert text.startswith("# tiny-32\n\nGender, from crops")
    assert "mean absolute error |" not in text.split("| faces |")[0]


def test_it_names_the_weights_that_training_began_with() -> None:
    text = as_markdown(card(weights="trunk.h5", weights_sha256="ab" * 32))
    assert "the weights `trunk.h5` (sha256 abababababababab…)" in " ".join(text.split())


def test_it_names_the_training_before() -> None:
    before = Training(
        "WIKI", faces={"train": 999}, recipe={"epochs": 7},
        weights="imagenet.h5", weights_sha256="cd" * 32,
    )  # fmt: skip
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
    training = Training("WIKI", faces={"train": 999}, recipe={"epochs": 7})
    teachers = (Teacher("large", "ab" * 32, training), Teacher("bought", "cd" * 32))
    words = " ".join(as_markdown(card(teachers=teachers)).split())
    assert (
        "Beside the labels it learnt the answers of large (sha256 abababababababab…), trained for 7 "
        "epochs on 999 faces of WIKI, which in turn began with random weights. And those of bought "
        "(sha256 cdcdcdcdcdcdcdcd…). Code: commit 123."
    ) in words


def test_a_card_without_figures_is_no_card() -> None:
    with pytest.raises(ValueError, match="'tiny' lacks its training or the metrics"):
        as_markdown(ModelCard("tiny", CropSpec(32, "box"), Pixels()))
