"""Weights of single faces: in the loss, and those that are left out."""

from dataclasses import replace

import numpy as np
import pytest

from lib.common.errors import UserError
from lib.models.bundle import DEFAULT_MODEL, read_bundle
from lib.models.card_text import as_markdown
from lib.models.model_card import Training
from lib.storage.folder import folder
from lib.training.faces import Faces, Labels, load_faces
from lib.training.loop import face_weights
from lib.training.options import TrainingOptions
from lib.training.recipe import Recipe
from lib.training.run import Run
from tests.made_faces import make_faces

COUNT = 20
WEIGHTS = np.array([1, 0, 0.5, 1] * 5, np.float32)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    folder = tmp_path_factory.mktemp("weights")
    make_faces(folder / "faces", train=COUNT, val=5, test=5)
    return load_faces(folder / "faces", "train", 32, folder / "cache")


def test_faces_of_no_weight_are_left_out(faces: Faces) -> None:
    weighted = faces.weighted(WEIGHTS)
    kept = np.flatnonzero(WEIGHTS)
    assert len(weighted) == 15
    np.testing.assert_array_equal(weighted.rows, faces.rows[kept])
    np.testing.assert_array_equal(weighted.classes["age"], faces.classes["age"][kept])
    np.testing.assert_array_equal(weighted.images(slice(3, 5)), faces.images(kept[3:5]))
    np.testing.assert_array_equal(weighted.part(slice(0, 3)).weights, [1, 0.5, 1])


def test_weights_reach_the_loss_beside_those_of_the_tasks(faces: Faces) -> None:
    recipe = Recipe(age_reweighting=0.5)
    weighted = faces.weighted(WEIGHTS)
    usual = face_weights(weighted.weighted(np.ones(15, np.float32)), recipe)
    np.testing.assert_allclose(face_weights(weighted, recipe), usual * WEIGHTS[WEIGHTS > 0])
    assert len(set(usual)) > 1
    np.testing.assert_array_equal(face_weights(faces, Recipe()), 1)


def test_weights_of_other_faces_are_refused(faces: Faces) -> None:
    with pytest.raises(UserError, match="20 faces have 3 weights"):
        faces.weighted(WEIGHTS[:3])


def labels(count: int) -> Labels:
    return Labels({"age": np.full(count, 30)}, {}, "", "")


def run_of(train: int, val: int, **more: object) -> Run:
    options = TrainingOptions(recipe=Recipe(batch_size=8))
    nowhere = folder("/nowhere")
    of_splits = {"train": labels(train), "val": labels(val), "test": labels(3)}
    return Run(options, nowhere, nowhere, of_splits, **more)  # type: ignore[arg-type]


def test_only_faces_that_take_part_count() -> None:
    weights = {"train": np.array([0, 0, 0.1] * 8, np.float32)}
    assert run_of(24, 10, face_weights=weights).faces == {"train": 8, "val": 10, "test": 3}
    run_of(24, 10, face_weights=weights).check()
    weights["train"][2] = 0
    with pytest.raises(UserError, match="the 7 faces of the split train are fewer than one step"):
        run_of(24, 10, face_weights=weights).check()
    weights = {"val": np.array([1, 0] * 3, np.float32)}
    with pytest.raises(UserError, match="the 3 faces of the split val are too few to calibrate"):
        run_of(24, 6, face_weights=weights).check()


def test_the_card_remembers_the_suspects() -> None:
    training = Training(suspects_sha256="abc", recipe={"suspect_weight": 0.25})
    assert Training.from_dict(vars(training)).suspects_sha256 == "abc"
    assert Training.from_dict({}).suspects_sha256 is None


@pytest.mark.parametrize(
    ("weight", "words"),
    [(0.0, "suspect were left out."), (0.25, "suspect counted 0.25 times as much.")],
)
def test_the_card_tells_of_the_suspects(weight: float, words: str) -> None:
    card = read_bundle(DEFAULT_MODEL).card
    assert card.training is not None
    assert "an audit of the labels" not in as_markdown(card)
    recipe = {**card.training.recipe, "suspect_weight": weight}
    training = replace(card.training, suspects_sha256="ab" * 32, recipe=recipe)
    text = " ".join(as_markdown(replace(card, training=training)).split())
    assert f"an audit of the labels (sha256 {'ab' * 8}…) had found {words} Code:" in text
