from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.tensorflow_predictor import TensorflowPredictor
from lib.training.augment import resized
from lib.training.distillation import Teachers
from tests.bundles import make_plain_bundle

TASKS = ("age", "gender")


def test_they_answer_together_each_at_its_size(tmp_path: Path) -> None:
    """Whatever order a model has its genders in; a face and its mirror image get the same answer."""
    large, small = (
        make_plain_bundle(tmp_path / "large", 40),
        make_plain_bundle(tmp_path / "small", 32),
    )
    turned = replace(
        small,
        card=replace(small.card, class_labels={"gender": small.card.class_labels["gender"][::-1]}),
    )
    teachers = Teachers([large, turned], TASKS, "float32")
    assert teachers.size == 40
    crops = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), np.uint8)
    shrunk = resized(tf.cast(crops, tf.float32), 32)
    one = over_both(TensorflowPredictor(large, TASKS), tf.cast(crops, tf.float32))
    other = over_both(TensorflowPredictor(small, TASKS), shrunk)
    seen = tf.constant(crops, tf.float32) / 255.0
    answers = teachers(seen)
    np.testing.assert_allclose(answers["age"], (one["age"] + other["age"]) / 2, atol=1e-5)
    expected = (one["gender"] + other["gender"][:, ::-1]) / 2
    np.testing.assert_allclose(answers["gender"], expected, atol=1e-5)
    assert np.abs(one["gender"] - other["gender"]).max() > 0.01
    mirrored = teachers(tf.reverse(seen, [2]))
    np.testing.assert_allclose(answers["age"], mirrored["age"], atol=1e-5)


def over_both(network: TensorflowPredictor, pixels: tf.Tensor) -> dict[str, NDArray[np.float32]]:
    """The mean over faces and their mirror images."""
    straight = network.probabilities(pixels)
    mirrored = network.probabilities(pixels[:, :, ::-1])
    return {task: ((straight[task] + mirrored[task]) / 2).numpy() for task in TASKS}
