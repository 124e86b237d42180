from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from lib.training.normalisation import _Shared, shared

CROPS = np.random.default_rng(0).normal(2.0, 3.0, (6, 5, 5, 4)).astype(np.float32)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 5, 4))
    normalised = keras.layers.BatchNormalization(momentum=0.9)(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(3, 3)(normalised))


def outcome(model: keras.Model) -> list[NDArray[np.float32]]:
    """Outputs, gradients of input and weights, statistics: of one step of one worker."""

    def step(crops: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(crops)
            outputs = model(crops, training=True)
            loss = tf.reduce_sum(outputs**3)
        return [outputs, *tape.gradient(loss, [crops, *model.trainable_variables])]

    strategy = tf.distribute.OneDeviceStrategy("cpu")
    results = strategy.run(tf.function(step), args=(tf.constant(CROPS),))
    return [np.asarray(r) for r in [*results, *model.non_trainable_variables]]


def exchanging(layer: Any, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    context = tf.distribute.get_replica_context()
    return layer._of_all(inputs, context)


@pytest.mark.parametrize("way", [None, exchanging])
def test_it_computes_what_keras_does(
    way: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, by one fused operation, and with sums that are exchanged."""
    if way:
        monkeypatch.setattr(_Shared, "_of_one", way)
    expected = network()
    model = shared(expected)
    assert type(model.layers[1]) is _Shared
    for mine, theirs in zip(outcome(model), outcome(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=5e-4, atol=5e-4)


def test_it_labels_as_before() -> None:
    expected = network()
    np.testing.assert_array_equal(shared(expected)(CROPS), expected(CROPS))
