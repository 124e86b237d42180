"""The optimiser over long vectors makes the updates of Keras's own."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.training import flat
from lib.training.averages import WeightAverages
from lib.training.checkpoint import FACTS, Position, read_checkpoint, write_checkpoint
from lib.training.flat import FlatGroup
from lib.training.optimizer import CLIP_NORM, FIRST_LOSS_SCALE, NOT_DECAYED, AdamW, LossScale
from lib.training.schedule import Cosine

RATES = [0.0, 0.01, 0.02, 0.01, 0.005, 0.001]
DECAY = 0.5
STRATEGY = tf.distribute.OneDeviceStrategy("cpu")


def network() -> keras.Model:
    """Kernels, biases, gamma and beta."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(5, 3)(inputs))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(x))
    with STRATEGY.scope():
        return keras.Model(inputs, x)


def gradients(model: keras.Model) -> list[list[tf.Tensor]]:
    """For each step; one in three is clipped."""
    rng = np.random.default_rng(0)
    return [
        [
            tf.constant(rng.normal(0, 3.0 if i % 3 == 0 else 0.1, v.shape), tf.float32)
            for i, v in enumerate(model.trainable_variables)
        ]
        for _ in RATES
    ]


def by_keras(accumulate: int = 1) -> list[NDArray[np.float32]]:
    model = network()
    optimizer = keras.optimizers.AdamW(
        weight_decay=DECAY,
        clipnorm=CLIP_NORM,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    for rate, of_step in zip(RATES, gradients(model), strict=True):
        optimizer.learning_rate = rate
        optimizer.apply(of_step, model.trainable_variables)
    return [v.numpy() for v in model.trainable_variables]


def by_vectors(accumulate: int = 1, spoilt: int | None = None) -> list[NDArray[np.float32]]:
    """The same; after one of the steps comes one that cannot be used."""
    model = network()
    optimizer = AdamW(model.trainable_variables, DECAY, accumulate, STRATEGY)

    @tf.function
    def step(of_step: list[tf.Tensor], rate: tf.Tensor, usable: tf.Tensor) -> None:
        def one() -> None:
            optimizer.apply(optimizer.summed(of_step), rate, usable)

        STRATEGY.run(one)

    for number, (rate, of_step) in enumerate(zip(RATES, gradients(model), strict=True)):
        step(of_step, tf.constant(rate), tf.constant(True))
        if number == spoilt:
            infinite = [g * np.inf for g in of_step]
            step(infinite, tf.constant(1.0), tf.constant(False))
    assert int(optimizer.updates) == len(RATES) // accumulate
    return [v.numpy() for v in model.trainable_variables]


@pytest.mark.parametrize("large", [1, 100, 1 << 20])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_are_those_of_keras(
    large: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever variables share a vector, and which of them are decayed."""
    monkeypatch.setattr(flat, "LARGE", large)
    before = [v.numpy() for v in network().trainable_variables]
    found, expected = by_vectors(accumulate), by_keras(accumulate)
    for one, other, first in zip(found, expected, before, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
        assert np.abs(one - first).max() > 1e-3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_cannot_be_used_changes_nothing(accumulate: int) -> None:
    found = by_vectors(accumulate, spoilt=2)
    for one, other in zip(found, by_vectors(accumulate), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_scale_of_the_loss_follows_the_gradients() -> None:
    scale = LossScale(STRATEGY)
    assert scale.checked([[tf.constant([1.0, 2.0])], [tf.constant([0.0])]])
    assert not scale.checked([[tf.constant([1.0, np.inf])], [tf.constant([0.0])]])
    assert not scale.checked([[tf.constant([1.0])], [tf.constant([np.nan])]])
    scale.follow(tf.constant(False))
    assert float(scale.scale) == FIRST_LOSS_SCALE / 2
    scale.variables[1].assign(1999)
    scale.follow(tf.constant(True))
    assert float(scale.scale) == FIRST_LOSS_SCALE
    assert int(scale.variables[1]) == 0


def test_vectors_and_tensors_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "LARGE", 20)
    variables = network().trainable_variables
    group = FlatGroup(variables, STRATEGY)
    assert group.sizes[0] == sum(v.numpy().size for v in variables if v.numpy().size < 20)
    assert len(group.sizes) == 1 + sum(v.numpy().size >= 20 for v in variables)
    for one, variable in zip(group.split(group.values()), variables, strict=True):
        np.testing.assert_array_equal(one, variable.numpy())


def test_averages_follow_the_weights_and_the_statistics() -> None:
    model = network()
    first = [v.numpy() for v in model.variables]
    averages = WeightAverages(model.variables, 0.9, STRATEGY)
    for variable in model.variables:
        variable.assign(variable.numpy() + 1)
    averages.move(tf.constant(1000))
    for one, before in zip(averages.arrays(), first, strict=True):
        np.testing.assert_allclose(one, before + 0.1, atol=1e-5)
    averages.restore(first)
    for one, before in zip(averages.arrays(), first, strict=True):
        np.testing.assert_array_equal(one, before)


def test_the_rate_is_that_of_keras() -> None:
    mine = Cosine(0.3, updates=20, warmup=6)
    theirs = keras.optimizers.schedules.CosineDecay(0.0, 14, warmup_target=0.3, warmup_steps=6)
    assert [mine(n) for n in range(25)] == pytest.approx([float(theirs(n)) for n in range(25)])
    assert Cosine(0.3, 20, 0)(0) == 0.3


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"networks": [np.zeros(3)]}, Position(epoch=2))
    assert read_checkpoint(tmp_path)[1] == Position(epoch=2)
    facts = json.loads((tmp_path / FACTS).read_text())
    del facts["version"]
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(
        UserError, match="of another version of this program; train in another --out"
    ):
        read_checkpoint(tmp_path)
