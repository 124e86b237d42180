"""MobileNet: a small backbone for which weights are published that were trained on faces."""

from typing import TYPE_CHECKING

from lib.models.backbones.layers import normalise
from lib.models.backbones.spec import BackboneSpec
from lib.network_input import Pixels

if TYPE_CHECKING:
    import keras

STEM = 32
BLOCKS = (
    # stride, width
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    *[(1, 512)] * 5,
    (2, 1024),
    (1, 1024),
)


def mobilenet(size: int | None) -> "keras.Model":
    """Build the network: normalised BGR crops → features.

    Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile vision
    applications", table 1, without the classifier.

    Args:
        size: side of the crops in pixels; None: any. The weights do not depend on it.

    Returns:
        A model float (n, size, size, 3) → float (n, 1024).
    """
    import keras
    from keras import layers

    inputs = keras.Input((size, size, 3), name="crops")
    x = normalise(layers.Conv2D(STEM, 3, 2, padding="same", use_bias=False)(inputs))
    for stride, width in BLOCKS:
        x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
        x = layers.Conv2D(width, 1, use_bias=False)(normalise(x))
        x = normalise(x)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name="mobilenet")


MOBILENET = BackboneSpec(
    mobilenet,
    size=96,
    # The published weights were trained with these.
    pixels=Pixels(channels="bgr", mean=(103.939 / 255, 116.779 / 255, 123.68 / 255), std=1 / 255),
    learning_rate=5e-4,
    gpu_batch=512,
)
