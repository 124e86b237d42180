"""VGG-Face: thirteen convolutions, a fully convolutional top, and the published networks of both.

Parkhi, Vedaldi and Zisserman, "Deep Face Recognition", BMVC 2015: configuration D of VGG. The
convolutions are padded with zeros to keep their size, 2 x 2 maxima follow each stage, and the top is
4096 outputs of all 7 x 7 places, 4096 of one place, then the classes.

Of a crop of 224 pixels, a convolution over all 7 x 7 places is one product of matrices, and so it is
built here, with the same weights in the same order. As a convolution, TensorFlow took 336 ms of two
cores for 8 faces where the product takes 48, a sixth of the whole network's time for nothing.
"""

from typing import TYPE_CHECKING

from lib.models.backbones.spec import BackboneSpec
from lib.network_input import Pixels

if TYPE_CHECKING:
    import keras

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions of 3 x 3, and their width, between two poolings of 2 x 2."""
FEATURES = 4096
SIZE = 224
"""Side of the crops in pixels."""
DROPOUT = 0.5
RANDOM, EMPTY = "glorot_uniform", "zeros"
"""What kernels begin with. Random numbers take twice their memory for a moment: networks that are filled
from a file begin empty."""


def vgg_face(classes: int, kernels: str = RANDOM) -> "keras.Model":
    """The whole network: crops float (n, 224, 224, 3) → probabilities float32 (n, classes).

    134,674,341 parameters with 101 classes, 145,002,878 with 2622.
    """
    import keras

    inputs = keras.Input((SIZE, SIZE, 3), name="crops")
    outputs = _top(_convolutions(inputs, kernels), classes, kernels)
    return keras.Model(inputs, outputs, name=f"vgg-face-{classes}")


def vgg_face_convolutions(kernels: str = RANDOM) -> "keras.Model":
    """The part that both published models share: crops float (n, 224, 224, 3) → (n, 7, 7, 512)."""
    import keras

    inputs = keras.Input((SIZE, SIZE, 3), name="crops")
    return keras.Model(inputs, _convolutions(inputs, kernels), name="vgg-face-convolutions")


def vgg_face_top(classes: int, kernels: str = RANDOM) -> "keras.Model":
    """What stands on the convolutions: float (n, 7, 7, 512) → probabilities float32 (n, classes)."""
    import keras

    grid = SIZE >> len(STAGES)
    inputs = keras.Input((grid, grid, STAGES[-1][1]), name="convolved")
    return keras.Model(inputs, _top(inputs, classes, kernels), name=f"vgg-face-top-{classes}")


def vgg_face_features(size: int | None, kernels: str = RANDOM) -> "keras.Model":
    """All but the classes, to train heads on: crops float (n, size, size, 3) → features float (n, 4096).

    Args:
        size: side of the crops in pixels; published weights are for 224.
        kernels: `RANDOM` or `EMPTY`.
    """
    import keras

    inputs = keras.Input((size, size, 3), name="crops")
    return keras.Model(inputs, _features(_convolutions(inputs, kernels), kernels), name="vgg-face")


def _convolutions(x: "keras.KerasTensor", kernels: str) -> "keras.KerasTensor":
    from keras import layers

    for stage, (convolutions, width) in enumerate(STAGES, start=1):
        for number in range(1, convolutions + 1):
            name = f"conv{stage}_{number}"
            convolution = layers.Conv2D(
                width, 3, padding="same", activation="relu", kernel_initializer=kernels, name=name
            )
            x = convolution(x)
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    return x


def _features(x: "keras.KerasTensor", kernels: str) -> "keras.KerasTensor":
    from keras import layers

    x = layers.Flatten(name="places")(x)
    fc6, fc7 = (
        layers.Dense(FEATURES, activation="relu", kernel_initializer=kernels, name=name)
        for name in ("fc6", "fc7")
    )
    x = layers.Dropout(DROPOUT, name="dropout6")(fc6(x))
    return fc7(x)


def _top(x: "keras.KerasTensor", classes: int, kernels: str) -> "keras.KerasTensor":
    from keras import layers

    x = layers.Dropout(DROPOUT, name="dropout7")(_features(x, kernels))
    x = layers.Dense(classes, kernel_initializer=kernels, name="predictions")(x)
    # Softmax in float32 whatever the rest computes in: small probabilities decide the expectation.
    return layers.Softmax(dtype="float32", name="probabilities")(x)


VGG_FACE = BackboneSpec(
    vgg_face_features,
    size=SIZE,
    # The published weights were trained with the mean of the VGG-Face data set.
    pixels=Pixels(channels="bgr", scale=1.0, mean=(93.5940, 104.7624, 129.1863), std=1.0),
    any_size=False,
    free=("fc6", "fc7"),  # as in the original recipe: all convolutions stay frozen
    frozen_epochs=-1,
    learning_rate=1e-4,
    gpu_batch=96,
)
