"""What training minimises."""

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.expectation import AGE_CLASSES


def smoothed_ages(ages: NDArray[np.integer], sigma: float) -> NDArray[np.float32]:
    """Spread each age over its neighbours with a Gaussian: a year off is less wrong than thirty.

    Label distribution smoothing: Geng, Yin and Zhou, TPAMI 2013.

    Args:
        ages: (n,) whole years in 0..100.
        sigma: standard deviation in years, above 0.

    Returns:
        (n, 101) float32; every row sums to one.
    """
    distance = (
        np.arange(AGE_CLASSES, dtype=np.float32)[None] - np.asarray(ages, np.float32)[:, None]
    )
    weight = np.exp(-0.5 * (distance / sigma) ** 2)
    return weight / weight.sum(axis=1, keepdims=True)


def age_loss(target: tf.Tensor, probabilities: tf.Tensor, expectation_weight: float) -> tf.Tensor:
    """Cross entropy with the smoothed age, plus the distance in years of the two expectations.

    Args:
        target: float32 (n, 101), of `smoothed_ages`.
        probabilities: float32 (n, 101), the model's.
        expectation_weight: nats for each year of distance.

    Returns:
        float32 (n,), one loss for each face.
    """
    entropy = -tf.reduce_sum(target * tf.math.log(probabilities + 1e-7), axis=1)
    years = tf.range(AGE_CLASSES, dtype=tf.float32)
    distance = tf.abs(tf.linalg.matvec(probabilities - target, years))
    return entropy + expectation_weight * distance


def gender_loss(target: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Cross entropy of the gender's index int (n,) under float32 (n, 2): float32 (n,)."""
    return -tf.math.log(tf.gather(probabilities, target, axis=1, batch_dims=1) + 1e-7)
