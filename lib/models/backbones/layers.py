"""Layers that several backbones have."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def normalise(x: "keras.KerasTensor", activate: bool = True) -> "keras.KerasTensor":
    """Batch normalisation, whose statistics are quick to follow: an epoch has few batches; then ReLU6."""
    from keras import layers

    x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3)(x)
    return layers.ReLU(6.0)(x) if activate else x
