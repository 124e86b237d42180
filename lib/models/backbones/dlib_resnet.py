"""dlib's face recognition network as a backbone: weights that know faces are free to use for it."""

from typing import TYPE_CHECKING

import numpy as np

from lib.models.backbones.layers import normalise
from lib.models.backbones.spec import BackboneSpec
from lib.network_input import Pixels

if TYPE_CHECKING:
    import keras

STEM = 32
STAGES = (
    # blocks, width; all stages but the first begin with a block that halves the side
    (3, 32),
    (4, 64),
    (3, 128),
    (3, 256),
)


def dlib_resnet(size: int | None) -> "keras.Model":
    """Build the network: normalised RGB crops → features.

    The 27 layers of ResNet (He et al. 2016) that dlib's network recognises faces with (King,
    dlib.net, dnn_face_recognition_ex.cpp), without the last block, which is small and made for
    telling people apart. Two differences, after which its weights still fit: borders are padded, so
    that small crops keep their edges, and where the width grows, a matrix, at first the identity, takes
    the place of added zeros.

    Args:
        size: side of the crops in pixels; multiples of 32 leave no border over. The weights do not
            depend on it.

    Returns:
        A model float (n, size, size, 3) → float (n, 256).
    """
    import keras
    from keras import layers

    inputs = keras.Input((size, size, 3), name="crops")
    x = normalise(layers.Conv2D(STEM, 7, 2, padding="same", use_bias=False)(inputs), activate=False)
    x = layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(x))
    for stage, (blocks, width) in enumerate(STAGES):
        for block in range(blocks):
            x = _residual(x, width, halve=stage > 0 and block == 0)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name="dlib-resnet")


def _residual(x: "keras.KerasTensor", width: int, halve: bool) -> "keras.KerasTensor":
    from keras import layers

    y = layers.Conv2D(width, 3, 2 if halve else 1, padding="same", use_bias=False)(x)
    y = layers.Conv2D(width, 3, padding="same", use_bias=False)(
        layers.ReLU()(normalise(y, activate=False))
    )
    y = normalise(y, activate=False)
    if halve:
        x = layers.AveragePooling2D(2, padding="same")(x)
        x = layers.Conv2D(width, 1, use_bias=False, kernel_initializer=_identity)(x)
    return layers.ReLU()(layers.Add()([x, y]))


def _identity(shape: tuple[int, ...], dtype: str | None = None) -> np.ndarray:
    """Keeps all channels, and adds some that are zero."""
    return np.eye(shape[-2], shape[-1], dtype=dtype or "float32")[None, None]


DLIB_RESNET = BackboneSpec(
    dlib_resnet,
    size=128,
    # The published weights were trained with these.
    pixels=Pixels(mean=(122.782 / 255, 117.001 / 255, 104.298 / 255), std=1.0),
    learning_rate=5e-4,
)
