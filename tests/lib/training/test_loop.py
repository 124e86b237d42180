from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from lib.common.errors import UserError
from lib.models.backbones import compact
from lib.models.backbones.registry import load_weights
from lib.models.bundle import Bundle, write_bundle
from lib.models.model_card import ModelCard
from lib.network_input import CropSpec, Pixels
from lib.tasks import TASKS
from lib.tasks.age_targets import age_weights
from lib.tasks.gender import FEMALE, GENDERS
from lib.training import loop
from lib.training.augment import COARSE, augment, degrade, mixup, plain, resized
from lib.training.checkpoint import Position, read_checkpoint, write_checkpoint
from lib.training.faces import Faces, load_faces
from lib.training.loop import AVERAGED, Trainer
from lib.training.networks import build_networks
from lib.training.recipe import Recipe
from lib.training.schedule import epoch_order
from lib.training.validation import validation_metrics, validation_sums
from tests.made_faces import make_faces

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=1e-3, warmup_epochs=0.5, frozen_epochs=0)


@pytest.fixture(autouse=True)
def small_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of a few layers are built in a second."""
    monkeypatch.setattr(compact, "WIDTHS", (8, 16))
    monkeypatch.setattr(compact, "BLOCKS_PER_STAGE", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("faces"), train=27, val=17)


@pytest.fixture(scope="module")
def faces(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Faces]:
    cache = tmp_path_factory.mktemp("cache")
    return {split: load_faces(folder, split, 38, cache) for split in ("train", "val")}


def make_trainer(
    faces: dict[str, Faces], recipe: Recipe = RECIPE, teachers: Sequence[Bundle] = ()
) -> Trainer:
    strategy = tf.distribute.OneDeviceStrategy("cpu")
    return Trainer(
        strategy, lambda: build_networks("compact", 32, recipe.dropout, tasks=recipe.tasks), recipe, 32,
        faces["train"], faces["val"], rank=0, workers=1,
        teachers=teachers,
    )  # fmt: skip


def test_a_run_that_goes_on_ends_as_if_it_had_not_stopped(
    faces: dict[str, Faces], tmp_path: Path
) -> None:
    """Weights, averages, moments, augmentation, dropout and order: all as in one go."""
    whole, position = make_trainer(faces), Position()
    for epoch in range(2):
        position.epoch, position.step, position.losses = epoch, 0, []

        def stop(now: Position) -> None:
            if (now.epoch, now.step) == (1, 1):
                write_checkpoint(tmp_path, whole.arrays(), now)

        whole.train_epoch(position, stop)
    arrays, half_way = read_checkpoint(tmp_path)
    assert (half_way.epoch, half_way.step, len(half_way.losses)) == (1, 1, 1)
    rest = make_trainer(faces)
    rest.restore(arrays)
    rest.train_epoch(half_way, lambda now: None)
    assert half_way.losses == pytest.approx(position.losses, rel=1e-4)
    for name in ("networks", "heads", "backbone"):
        for one, other in zip(whole.arrays()[name], rest.arrays()[name], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_it_learns(faces: dict[str, Faces]) -> None:
    recipe = replace(RECIPE, epochs=12, learning_rate=0.01, plain=True, ema_momentum=0)
    trainer = make_trainer(faces, recipe)
    losses = []
    for epoch in range(12):
        position = Position(epoch)
        trainer.train_epoch(position, lambda now: None)
        losses.append(np.mean(position.losses))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_share_a_batch_and_the_validation(faces: dict[str, Faces], workers: int) -> None:
    """17 faces on up to five workers: each face counts once, whatever the remainder."""
    trainer = make_trainer(faces)
    trainer.workers = workers
    parts = []
    order = epoch_order(100, epoch=3, seed=7)
    for trainer.rank in range(workers):
        parts.append(trainer._part(order, step=1))
    np.testing.assert_array_equal(np.concatenate(parts), order[8 * workers : 16 * workers])
    val = faces["val"]
    predicted = trainer.predict(val, 32)
    sums: Counter[str] = Counter()
    for rank in range(workers):
        mine = slice(rank, None, workers)
        of_part = {task: probabilities[mine] for task, probabilities in predicted.items()}
        sums.update(validation_sums(of_part, val.part(mine), RECIPE))
    together = validation_metrics(sums, tuple(TASKS))
    assert together["val_faces"] == 17
    expected = predicted["age"].astype(np.float64) @ np.arange(101)
    assert together["val_mae"] == pytest.approx(
        np.abs(expected - val.classes["age"]).mean(), rel=1e-5
    )
    right = (predicted["gender"].argmax(axis=1) == val.classes["gender"]).mean()
    assert together["val_gender_accuracy"] == pytest.approx(right)


def certain(folder: Path) -> Bundle:
    """A model that holds everybody for female; it has no backbone, and takes larger crops."""
    x = inputs = keras.Input((36, 36, 3))
    x = keras.layers.GlobalAveragePooling2D()(x)
    bias = keras.initializers.Constant(5.0 * np.eye(2)[GENDERS.index(FEMALE)])
    gender = keras.layers.Dense(2, "softmax", kernel_initializer="zeros", bias_initializer=bias)(x)
    return write_bundle(
        folder,
        {"gender": keras.Model(inputs, gender)},
        ModelCard("certain", CropSpec(36, "box"), Pixels()),
    )


def test_it_learns_what_its_teachers_say(faces: dict[str, Faces], tmp_path: Path) -> None:
    """Of the labels, half of which say otherwise, only as much as it is told to."""
    teacher = certain(tmp_path)
    found = []
    for share in (0.0, 1.0):
        recipe = replace(
            RECIPE,
            tasks=("gender",),
            plain=True,
            ema_momentum=0,
            learning_rate=0.01,
            distillation=share,
        )
        trainer = make_trainer(faces, recipe, [teacher])
        for epoch in range(8):
            trainer.train_epoch(Position(epoch), lambda now: None)
        gender = trainer.predict(faces["train"], 32)["gender"]
        found.append((gender.argmax(axis=1) == GENDERS.index(FEMALE)).mean())
    assert found[0] < 0.9
    assert found[1] == 1


def test_validation_measures_the_average_and_leaves_the_weights(faces: dict[str, Faces]) -> None:
    trainer = make_trainer(faces)
    trainer.train_epoch(Position(), lambda now: None)
    before = trainer.arrays()["networks"]
    metrics = trainer.validate(32)
    after = trainer.arrays()
    for one, other in zip(before, after["networks"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((a != b).any() for a, b in zip(before, after[AVERAGED], strict=True))
    assert metrics["val_faces"] == 17
    assert trainer.workers_apart() == 0


def test_validation_has_one_graph_whatever_remains(
    faces: dict[str, Faces], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(faces)
    whole = trainer.predict(faces["val"], 32)
    monkeypatch.setattr(loop, "PREDICTED_AT_A_TIME", 8)
    parts = make_trainer(faces)
    parts.restore(trainer.arrays())
    for task, probabilities in parts.predict(faces["val"], 32).items():
        np.testing.assert_allclose(probabilities, whole[task], atol=1e-6)
    assert parts._forward.experimental_get_tracing_count() == 1


def test_a_frozen_backbone_stays_as_it_is(faces: dict[str, Faces]) -> None:
    trainer = make_trainer(faces, replace(RECIPE, frozen_epochs=1, ema_momentum=0.0))
    backbone = [w.numpy() for w in trainer.networks.backbone.weights]
    head = trainer.networks.heads["age"].weights[0].numpy()
    trainer.train_epoch(Position(), lambda now: None)
    for old, new in zip(backbone, trainer.networks.backbone.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    assert (head != trainer.networks.heads["age"].weights[0].numpy()).any()
    trainer.train_epoch(Position(epoch=1), lambda now: None)
    assert (backbone[0] != trainer.networks.backbone.weights[0].numpy()).any()


@pytest.mark.parametrize(
    "changes", [{"precision": "bfloat16"}, {"precision": "float16"}, {"accumulate": 2},
                {"mixup": 0.4}, {"age_reweighting": 0.5},
                {"progressive_size": 32, "progressive_epochs": 1}, {"tasks": ("gender",)}],
)  # fmt: skip
def test_every_way_of_training_trains(faces: dict[str, Faces], changes: dict[str, object]) -> None:
    trainer = make_trainer(faces, replace(RECIPE, **changes))  # type: ignore[arg-type]
    before = trainer.networks.backbone.weights[0].numpy()
    position = Position()
    # Float16 begins with a loss scale that overflows, and halves it after every such step.
    for epoch in range(6):
        position = Position(epoch)
        trainer.train_epoch(position, lambda now: None)
    assert np.isfinite(position.losses).all()
    metrics = trainer.validate(32)
    assert ("val_mae" in metrics) == ("age" in trainer.networks.models)
    assert (before != trainer.networks.backbone.weights[0].numpy()).any()


def test_vgg_face_trains_what_the_original_recipe_trains() -> None:
    networks = build_networks("vgg-face", 32)
    free = {v.path.split("/")[-2] for v in networks.heads_and_free}
    assert {"fc6", "fc7"} < free
    assert not any(name.startswith("conv") for name in free)
    assert len(networks.freezable) == 2 * 13
    assert networks.pixels.channels == "bgr"
    assert networks.backbone.output.shape[-1] == 4096


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = build_networks("compact", 32).heads["age"]
    other.save(tmp_path / "other.keras")
    (tmp_path / "text.h5").write_text("no weights")
    for name in ("other.keras", "text.h5"):
        with pytest.raises(UserError, match=f"{name}.*does not fit compact"):
            load_weights(build_networks("compact", 32).backbone, tmp_path / name)


@pytest.mark.parametrize(("side", "size"), [(115, 96), (80, 36), (64, 32), (48, 64)])
def test_faces_are_resized_by_area(side: int, size: int) -> None:
    """Any devices may do it: TensorFlow's own operation has a kernel for CPUs only."""
    x = tf.constant(np.random.default_rng(0).random((3, side, side, 3), np.float32))
    by_tensorflow = tf.image.resize(x, (size, size), method="area")
    np.testing.assert_allclose(resized(x, size), by_tensorflow, atol=2e-5)


def test_no_step_leaves_the_gpu() -> None:
    """Of what is done to the faces of a step, everything has a kernel for GPUs."""
    seen = tf.function(
        lambda images, seed: (
            degrade(resized(augment(images, 96, seed), 64), seed, coarsen=True), plain(images, 64),
        )
    ).get_concrete_function(
        tf.TensorSpec((None, 115, 115, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)
    )  # fmt: skip
    operations = {operation.type for operation in seen.graph.get_operations()} - {"Placeholder"}
    on_cpus_only = {
        name
        for name in operations
        if not {"GPU", "DEFAULT"} & {kernel.device_type for kernel in kernels_of(name)}
    }
    assert not on_cpus_only


def kernels_of(operation: str) -> Sequence[Any]:
    return kernels.get_registered_kernels_for_op(operation).kernel


def test_augmentation_follows_from_its_seed(faces: dict[str, Faces]) -> None:
    images = tf.constant(faces["train"].images(slice(6)))
    seed = tf.constant([3, 4])
    one = augment(images, 32, seed).numpy()
    assert one.shape == (6, 32, 32, 3)
    assert one.min() >= 0
    assert one.max() <= 1
    np.testing.assert_array_equal(one, augment(images, 32, seed).numpy())
    assert (one != augment(images, 32, tf.constant([3, 5])).numpy()).any()
    assert (one != plain(images, 32).numpy()).any()


def test_faces_are_shown_sharper_and_softer() -> None:
    waves = np.sin(np.arange(64)) * 30 + np.linspace(28, 228, 64)
    picture = np.broadcast_to(waves[:, None, None], (64, 64, 3)).astype(np.uint8)

    def steepness(images: np.ndarray) -> np.ndarray:
        grey = images.mean(axis=3)
        return np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) / grey.std(axis=(1, 2))

    as_it_is = steepness(plain(tf.constant(picture[None]), 64).numpy())[0]
    many = plain(tf.constant(np.repeat(picture[None], 64, axis=0)), 64)
    degraded = degrade(many, tf.constant([1, 2]), coarsen=True).numpy()
    assert degraded.shape == many.shape
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    found = steepness(degraded)
    assert found.min() < 0.8 * as_it_is
    assert found.max() > 1.2 * as_it_is
    np.testing.assert_array_equal(
        degraded, degrade(many, tf.constant([1, 2]), coarsen=True).numpy()
    )


@pytest.mark.parametrize("coarsen", [True, False])
def test_some_faces_lose_the_detail_of_a_small_one(coarsen: bool) -> None:
    """Three in five keep nothing of noise that half of its pixels cannot show; without a teacher none."""
    noise = np.random.default_rng(0).random((1, 96, 96, 3), np.float32)
    many = tf.constant(np.repeat(noise, 200, axis=0))
    degraded = degrade(many, tf.constant([1, 2]), coarsen).numpy().mean(axis=3)
    spectrum = np.abs(np.fft.rfft(degraded - degraded.mean(axis=(1, 2), keepdims=True)))
    fine = spectrum[:, :, 36:].mean(axis=(1, 2)) / spectrum.mean(axis=(1, 2))
    assert abs(np.mean(fine < 0.3) - (len(COARSE) / 5 if coarsen else 0)) < 0.1


def test_mixup_blends_faces_and_targets_alike() -> None:
    x = tf.constant(np.random.default_rng(0).random((4, 8, 8, 3), np.float32))
    targets = tf.eye(4)
    mixed, (blended,) = mixup(x, (targets,), 0.4, tf.constant([1, 2]))
    share = blended.numpy()[0, 0]
    assert 0 < share < 1
    np.testing.assert_allclose(
        mixed.numpy(), share * x.numpy() + (1 - share) * x.numpy()[::-1], atol=1e-6
    )
    np.testing.assert_allclose(blended.numpy().sum(axis=1), 1, atol=1e-6)


def test_rare_ages_count_more_if_asked_to() -> None:
    ages = np.array([20] * 90 + [80] * 10)
    np.testing.assert_allclose(age_weights(ages, 0.0), 1)
    weights = age_weights(ages, 1.0)
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    assert weights[ages == 80].sum() == pytest.approx(weights[ages == 20].sum(), rel=1e-4)
