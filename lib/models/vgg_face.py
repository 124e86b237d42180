"""The trunk of VGG-Face: sixteen layers, up to the last one before the classes.

Parkhi, Vedaldi and Zisserman, "Deep Face Recognition", BMVC 2015: configuration D of VGG. The names
of the layers are those of the published Keras weights, by which the weights of a file are found.
"""

import keras
from keras import layers

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions, and their width, of each stage."""
FEATURES = 4096


def vgg_face_trunk(size: int) -> keras.Model:
    """Build the trunk: crops float (n, size, size, 3), BGR less the mean → features float (n, 4096).

    Args:
        size: side of the crops in pixels; published weights are for 224.
    """
    x = inputs = keras.Input((size, size, 3), name="crops")
    for stage, (convolutions, width) in enumerate(STAGES, start=1):
        for number in range(1, convolutions + 1):
            name = f"conv{stage}_{number}"
            x = layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    x = layers.Conv2D(FEATURES, int(x.shape[1]), activation="relu", name="fc6")(x)
    x = layers.Dropout(0.5, name="dropout6")(x)
    x = layers.Conv2D(FEATURES, 1, activation="relu", name="fc7")(x)
    return keras.Model(inputs, layers.Flatten(name="features")(x), name="vgg-face")
