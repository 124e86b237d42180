"""The output of a task, on the features of a backbone."""

import keras
from keras import layers

from lib.tasks import TASKS


def head(task: str, features: int, dropout: float = 0.3) -> keras.Model:
    """Features float (n, features) → probabilities float32 (n, classes) of the task's classes."""
    inputs = keras.Input((features,), name="features")
    x = layers.Dropout(dropout)(inputs)
    # Softmax in float32 whatever the backbone computes in: small probabilities decide the expectation.
    classes = TASKS[task].classes
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name=task)(x)
    return keras.Model(inputs, outputs, name=task)
