"""The compact backbone: a small residual network for machines without a GPU."""

from typing import TYPE_CHECKING

from lib.models.backbones.spec import BackboneSpec
from lib.network_input import Pixels

if TYPE_CHECKING:
    import keras

WIDTHS = (32, 64, 128, 256)
BLOCKS_PER_STAGE = 2
SQUEEZE_RATIO = 8


def compact(size: int | None) -> "keras.Model":
    """Build the network: normalised RGB crops → features.

    A stem that halves the resolution, then four stages of two residual blocks with squeeze and
    excitation (He et al. 2016; Hu et al. 2018), then the mean over all positions. Plain 3 × 3
    convolutions: on CPUs they train and run several times faster than depthwise ones of equal accuracy.

    Args:
        size: side of the crops in pixels; None: any. The weights do not depend on it.

    Returns:
        A model float (n, size, size, 3) → float (n, 256).
    """
    import keras
    from keras import layers

    inputs = keras.Input((size, size, 3), name="crops")
    x = _convolution(inputs, WIDTHS[0], stride=2)
    for stage, width in enumerate(WIDTHS):
        for block in range(BLOCKS_PER_STAGE):
            x = _residual_block(x, width, stride=2 if stage > 0 and block == 0 else 1)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name="compact")


def _residual_block(x: "keras.KerasTensor", width: int, stride: int) -> "keras.KerasTensor":
    from keras import layers

    y = _convolution(x, width, stride)
    y = layers.Conv2D(width, 3, padding="same", use_bias=False)(y)
    # A last scale of zero makes every block the identity at first: deep sums then start out tame.
    y = _normalisation(gamma_initializer="zeros")(y)
    y = _squeeze_excite(y, width)
    if stride > 1:
        x = layers.AveragePooling2D(stride, padding="same")(x)
    if x.shape[-1] != width:
        x = layers.Conv2D(width, 1, use_bias=False)(x)
        x = _normalisation()(x)
    return layers.ReLU()(layers.Add()([x, y]))


def _convolution(x: "keras.KerasTensor", width: int, stride: int) -> "keras.KerasTensor":
    from keras import layers

    x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
    x = _normalisation()(x)
    return layers.ReLU()(x)


def _normalisation(gamma_initializer: str = "ones") -> "keras.Layer":
    """Statistics that are quick to follow: an epoch has few batches."""
    from keras import layers

    return layers.BatchNormalization(momentum=0.97, gamma_initializer=gamma_initializer)


def _squeeze_excite(x: "keras.KerasTensor", width: int) -> "keras.KerasTensor":
    from keras import layers

    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(max(8, width // SQUEEZE_RATIO), 1, activation="relu")(gate)
    gate = layers.Conv2D(width, 1, activation="sigmoid")(gate)
    return layers.Multiply()([x, gate])


COMPACT = BackboneSpec(
    compact, size=80, pixels=Pixels(mean=0.5, std=0.25), learning_rate=1.5e-3, gpu_batch=512
)
