"""The two outputs that stand on a trunk."""

import keras
from keras import layers

from lib.datasets.labels import GENDERS
from lib.models.expectation import AGE_CLASSES

GENDER_LABELS = GENDERS


def age_head(features: int, dropout: float = 0.3) -> keras.Model:
    """Features float (n, features) → probabilities float32 (n, 101) of the ages 0 to 100."""
    return _head("age", features, AGE_CLASSES, dropout)


def gender_head(features: int, dropout: float = 0.3) -> keras.Model:
    """Features float (n, features) → probabilities float32 (n, 2) of `GENDER_LABELS`."""
    return _head("gender", features, len(GENDER_LABELS), dropout)


def _head(name: str, features: int, classes: int, dropout: float) -> keras.Model:
    inputs = keras.Input((features,), name="features")
    x = layers.Dropout(dropout)(inputs)
    # Softmax in float32 whatever the trunk computes in: small probabilities decide the expectation.
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name=name)(x)
    return keras.Model(inputs, outputs, name=name)
