from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from lib.models.tensorflow_predictor import TensorflowPredictor
from lib.training.augment import resized
from lib.training.distillation import Teachers
from tests.bundles import make_plain_bundle

TASKS = ("age", "gender")


def test_they_answer_together_each_at_its_size(tmp_path: Path) -> None:
    """Whatever order a model has its genders in."""
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
    one = TensorflowPredictor(large, TASKS)(crops)
    other = TensorflowPredictor(small, TASKS).probabilities(shrunk)
    answers = teachers(tf.constant(crops, tf.float32) / 255.0)
    np.testing.assert_allclose(answers["age"], (one["age"] + other["age"]) / 2, atol=1e-5)
    expected = (one["gender"] + other["gender"].numpy()[:, ::-1]) / 2
    np.testing.assert_allclose(answers["gender"], expected, atol=1e-5)
    assert np.abs(one["gender"] - other["gender"]).max() > 0.01
