import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from lib.training import normalisation
from lib.training.normalisation import GROUP, _InGroups, group_sizes, in_groups, statistics

CROPS = np.random.default_rng(0).normal(2.0, 3.0, (6, 9, 9, 4)).astype(np.float32)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 4))
    normalised = keras.layers.BatchNormalization(momentum=0.9)(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(3, 3)(normalised))


def outcome(model: keras.Model, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Outputs and gradients of input and weights of one step."""
    sample = tf.constant(crops)
    with tf.GradientTape() as tape:
        tape.watch(sample)
        outputs = model(sample, training=True)
        loss = tf.reduce_sum(outputs**3)
    gradients = tape.gradient(loss, [sample, *model.trainable_variables])
    return [np.asarray(value) for value in [outputs, *gradients]]


def test_of_one_group_it_computes_what_keras_does() -> None:
    expected = network()
    model = in_groups(expected)
    assert type(model.layers[1]) is _InGroups
    for mine, theirs in zip(outcome(model, CROPS), outcome(expected, CROPS), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=5e-4, atol=5e-4)
    for mine, theirs in zip(statistics(model), statistics(expected), strict=True):
        # Keras divides the squares by all values of the sample, the fused operation by one less.
        np.testing.assert_allclose(mine, theirs, rtol=1 / 400)


def test_groups_are_as_batches_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a batch that two workers share is to them what it is to one."""
    monkeypatch.setattr(normalisation, "GROUP", 3)
    whole, *halves = (in_groups(network()) for _ in range(3))
    outputs, of_crops, *of_weights = outcome(whole, CROPS)
    parts = [outcome(model, CROPS[3 * n : 3 * n + 3]) for n, model in enumerate(halves)]
    np.testing.assert_allclose(outputs, np.concatenate([p[0] for p in parts]), atol=1e-4)
    np.testing.assert_allclose(of_crops, np.concatenate([p[1] for p in parts]), atol=1e-3)
    for n, gradient in enumerate(of_weights, 2):
        np.testing.assert_allclose(gradient, sum(p[n] for p in parts), rtol=1e-3)
    for together, *apart in zip(statistics(whole), *map(statistics, halves), strict=True):
        np.testing.assert_allclose(together, np.mean(apart, axis=0), rtol=1e-5)


def test_many_groups_by_one_operation_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalisation, "GROUP", 3)
    apart, together = in_groups(network()), in_groups(network())
    expected = outcome(apart, CROPS)
    monkeypatch.setattr(normalisation, "MOST_PARTS", 1)
    monkeypatch.setattr(normalisation, "_by_parts", None)
    for mine, theirs in zip(outcome(together, CROPS), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)
    for mine, theirs in zip(statistics(together), statistics(apart), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)


@pytest.mark.parametrize("faces", [1, 20, GROUP, 48, 2 * GROUP, 97, 500])
def test_groups_are_even(faces: int) -> None:
    sizes = group_sizes(faces)
    assert sum(sizes) == faces
    assert max(sizes) - min(sizes) <= 1
    if faces % GROUP == 0:
        assert set(sizes) == {GROUP}


def test_it_labels_as_before() -> None:
    expected = network()
    np.testing.assert_array_equal(in_groups(expected)(CROPS), expected(CROPS))
