"""EfficientNet-Lite0: a small backbone for which weights trained on ImageNet are free to use."""

from typing import TYPE_CHECKING

from lib.models.backbones.layers import normalise
from lib.models.backbones.spec import BackboneSpec
from lib.network_input import Pixels

if TYPE_CHECKING:
    import keras

STEM, HEAD = 32, 1280
EXPANSION = 6
STAGES = (
    # blocks, kernel, stride, width
    (1, 3, 1, 16),
    (2, 3, 2, 24),
    (2, 5, 2, 40),
    (3, 3, 2, 80),
    (3, 5, 1, 112),
    (4, 5, 2, 192),
    (1, 3, 1, 320),
)


def efficientnet_lite0(size: int | None) -> "keras.Model":
    """Build the network: normalised RGB crops → features.

    EfficientNet-B0 (Tan and Le 2019) as its authors made it for small devices: ReLU6 in place of Swish,
    no squeeze and excitation. The order of the layers is that of their published weights.

    Args:
        size: side of the crops in pixels; None: any. The weights do not depend on it.

    Returns:
        A model float (n, size, size, 3) → float (n, 1280).
    """
    import keras
    from keras import layers

    inputs = keras.Input((size, size, 3), name="crops")
    x = normalise(layers.Conv2D(STEM, 3, 2, padding="same", use_bias=False)(inputs))
    for stage, (blocks, kernel, stride, width) in enumerate(STAGES):
        for block in range(blocks):
            expansion = EXPANSION if stage else 1
            x = _inverted_residual(x, expansion, kernel, 1 if block else stride, width)
    x = normalise(layers.Conv2D(HEAD, 1, use_bias=False)(x))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name="efficientnet-lite0")


def _inverted_residual(
    x: "keras.KerasTensor", expansion: int, kernel: int, stride: int, width: int
) -> "keras.KerasTensor":
    """Widen, convolve each channel by itself, narrow (Sandler et al. 2018)."""
    from keras import layers

    y, before = x, x.shape[-1]
    if expansion > 1:
        y = normalise(layers.Conv2D(before * expansion, 1, use_bias=False)(y))
    y = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False)(y)
    y = layers.Conv2D(width, 1, use_bias=False)(normalise(y))
    y = normalise(y, activate=False)
    return layers.Add()([x, y]) if stride == 1 and before == width else y


EFFICIENTNET_LITE0 = BackboneSpec(
    efficientnet_lite0,
    size=96,
    pixels=Pixels(mean=127 / 255, std=128 / 255),
    learning_rate=1e-3,
    gpu_batch=512,
)
