"""VGG-Face: thirteen convolutions, a fully convolutional top, and the published networks of both.

Parkhi, Vedaldi and Zisserman, "Deep Face Recognition", BMVC 2015: configuration D of VGG. The
convolutions are padded with zeros to keep their size, 2 x 2 maxima follow each stage, and the top is
4096 outputs of all 7 x 7 places, 4096 of one place, then the classes.

Of a crop of 224 pixels, a convolution over all 7 x 7 places is one product of matrices, and so it is
built here, with the same weights in the same order. As a convolution, TensorFlow took 336 ms of two
cores for 8 faces where the product takes 48, a sixth of the whole network's time for nothing.
"""

import keras
from keras import layers

from lib.models.backbones.vgg_face_weights import FEATURES, SIZE, STAGES

DROPOUT = 0.5
RANDOM, EMPTY = "glorot_uniform", "zeros"
"""What kernels begin with. Random numbers take twice their memory for a moment: networks that are filled
from a file begin empty."""


def vgg_face(classes: int, kernels: str = RANDOM) -> keras.Model:
    """The whole network: crops float (n, 224, 224, 3) → probabilities float32 (n, classes).

    134,674,341 parameters with 101 classes, 145,002,878 with 2622.
    """
    inputs = keras.Input((SIZE, SIZE, 3), name="crops")
    outputs = _top(_convolutions(inputs, kernels), classes, kernels)
    return keras.Model(inputs, outputs, name=f"vgg-face-{classes}")


def vgg_face_convolutions(kernels: str = RANDOM) -> keras.Model:
    """The part that both published models share: crops float (n, 224, 224, 3) → (n, 7, 7, 512)."""
    inputs = keras.Input((SIZE, SIZE, 3), name="crops")
    return keras.Model(inputs, _convolutions(inputs, kernels), name="vgg-face-convolutions")


def vgg_face_top(classes: int, kernels: str = RANDOM) -> keras.Model:
    """What stands on the convolutions: float (n, 7, 7, 512) → probabilities float32 (n, classes)."""
    grid = SIZE >> len(STAGES)
    inputs = keras.Input((grid, grid, STAGES[-1][1]), name="convolved")
    return keras.Model(inputs, _top(inputs, classes, kernels), name=f"vgg-face-top-{classes}")


def vgg_face_trunk(size: int, kernels: str = RANDOM) -> keras.Model:
    """All but the classes, to train heads on: crops float (n, size, size, 3) → features float (n, 4096).

    Args:
        size: side of the crops in pixels; published weights are for 224.
        kernels: `RANDOM` or `EMPTY`.
    """
    inputs = keras.Input((size, size, 3), name="crops")
    return keras.Model(inputs, _features(_convolutions(inputs, kernels), kernels), name="vgg-face")


def _convolutions(x: keras.KerasTensor, kernels: str) -> keras.KerasTensor:
    for stage, (convolutions, width) in enumerate(STAGES, start=1):
        for number in range(1, convolutions + 1):
            name = f"conv{stage}_{number}"
            convolution = layers.Conv2D(
                width, 3, padding="same", activation="relu", kernel_initializer=kernels, name=name
            )
            x = convolution(x)
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    return x


def _features(x: keras.KerasTensor, kernels: str) -> keras.KerasTensor:
    x = layers.Flatten(name="places")(x)
    fc6, fc7 = (
        layers.Dense(FEATURES, activation="relu", kernel_initializer=kernels, name=name)
        for name in ("fc6", "fc7")
    )
    x = layers.Dropout(DROPOUT, name="dropout6")(fc6(x))
    return fc7(x)


def _top(x: keras.KerasTensor, classes: int, kernels: str) -> keras.KerasTensor:
    x = layers.Dropout(DROPOUT, name="dropout7")(_features(x, kernels))
    x = layers.Dense(classes, kernel_initializer=kernels, name="predictions")(x)
    # Softmax in float32 whatever the rest computes in: small probabilities decide the expectation.
    return layers.Softmax(dtype="float32", name="probabilities")(x)
