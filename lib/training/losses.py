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
    """Cross entropy of the target, float32 (n, 2), under float32 (n, 2): float32 (n,)."""
    return -tf.reduce_sum(target * tf.math.log(probabilities + 1e-7), axis=1)


def age_weights(ages: NDArray[np.integer], power: float) -> NDArray[np.float32]:
    """How much each face counts, so that rare ages are not forgotten; 1 on average.

    The frequency of an age is that of the smoothed distribution, so that an age which happens to
    have one face less than its neighbours is not made up for.

    Args:
        ages: (n,) whole years in 0..100.
        power: of the inverse frequency; 0: all count the same, 1: all ages do.
    """
    counts = np.bincount(ages, minlength=AGE_CLASSES).astype(np.float32)
    frequency = counts @ smoothed_ages(np.arange(AGE_CLASSES), 2.0)
    weights = frequency[ages] ** -power
    return (weights / weights.mean()).astype(np.float32)
