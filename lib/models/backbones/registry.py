"""The trunks that can be trained, and what each needs.

Keras takes seconds to import, and a job that only looks up a default does without.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib.common.errors import UserError
from lib.models.bundle import Pixels

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Spec:
    """A trunk and its defaults.

    Attributes:
        build: size in pixels → trunk: input float (n, size, size, 3) → features float (n, features).
        size: of the crops, in pixels.
        pixels: how crops become input.
        any_size: whether the trunk takes crops of several sizes in one run.
        free: layers that are trained even while the trunk is frozen.
        frozen_epochs: see `lib.training.recipe.Recipe`.
        learning_rate: the same.
    """

    build: "Callable[[int], keras.Model]"
    size: int
    pixels: Pixels
    any_size: bool = True
    free: tuple[str, ...] = ()
    frozen_epochs: int = 0
    learning_rate: float = 1e-3


def _compact(size: int) -> "keras.Model":
    from lib.models.backbones.compact import compact_trunk

    return compact_trunk(size)


def _vgg_face(size: int) -> "keras.Model":
    from lib.models.backbones.vgg_face import vgg_face_trunk

    return vgg_face_trunk(size)


def _efficientnet(size: int) -> "keras.Model":
    import keras

    return keras.applications.EfficientNetV2B0(
        include_top=False,
        weights=None,
        input_shape=(size, size, 3),
        pooling="avg",
        include_preprocessing=False,
    )


def _efficientnet_lite(size: int) -> "keras.Model":
    from lib.models.backbones.efficientnet_lite import efficientnet_lite0_trunk

    return efficientnet_lite0_trunk(size)


def _dlib_resnet(size: int) -> "keras.Model":
    from lib.models.backbones.dlib_resnet import dlib_resnet_trunk

    return dlib_resnet_trunk(size)


BACKBONES = {
    "compact": Spec(_compact, 80, Pixels(mean=0.5, std=0.25), learning_rate=1.5e-3),
    "vgg-face": Spec(
        _vgg_face,
        224,
        # What the published weights were trained with: the mean of the VGG-Face data set.
        Pixels(channels="bgr", scale=1.0, mean=(93.5940, 104.7624, 129.1863), std=1.0),
        any_size=False,
        free=("fc6", "fc7"),  # as in the original recipe: all convolutions stay
        frozen_epochs=-1,
        learning_rate=1e-4,
    ),
    "dlib-resnet": Spec(
        _dlib_resnet,
        128,
        # What the published weights were trained with.
        Pixels(mean=(122.782 / 255, 117.001 / 255, 104.298 / 255), std=1.0),
        learning_rate=5e-4,
    ),
    "efficientnet-lite0": Spec(
        _efficientnet_lite, 96, Pixels(mean=127 / 255, std=128 / 255), learning_rate=1e-3
    ),
    "efficientnetv2-b0": Spec(
        _efficientnet, 128, Pixels(mean=0.5, std=0.5), frozen_epochs=1, learning_rate=5e-4
    ),
}


def load_weights(trunk: "keras.Model", file: Path) -> None:
    """Fill a trunk with weights of a `.h5`, `.weights.h5` or `.keras` file.

    Raises:
        UserError: the file cannot be read, or is of another network.
    """
    import keras

    try:
        if file.suffix == ".keras":
            other = keras.models.load_model(file, compile=False, safe_mode=True)
            trunk.set_weights(other.get_weights())
        else:
            trunk.load_weights(file)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--weights {str(file)!r} does not fit {trunk.name}: {reason}") from None
