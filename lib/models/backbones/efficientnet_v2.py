"""EfficientNetV2-B0 of Keras (Tan and Le 2021), with random weights."""

from typing import TYPE_CHECKING

from lib.models.backbones.spec import BackboneSpec
from lib.network_input import Pixels

if TYPE_CHECKING:
    import keras


def efficientnetv2_b0(size: int | None) -> "keras.Model":
    """Build the network: normalised RGB crops float (n, size, size, 3) → features float (n, 1280)."""
    import keras

    return keras.applications.EfficientNetV2B0(
        include_top=False,
        weights=None,
        input_shape=(size, size, 3),
        pooling="avg",
        include_preprocessing=False,
    )


EFFICIENTNETV2_B0 = BackboneSpec(
    efficientnetv2_b0,
    size=128,
    pixels=Pixels(mean=0.5, std=0.5),
    frozen_epochs=1,
    learning_rate=5e-4,
)
