"""The backbones that can be trained. A new one is a file with a `BackboneSpec`, and a line here.

Importing this does not import Keras, which takes seconds.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lib.common.errors import UserError
from lib.models.backbones.compact import COMPACT
from lib.models.backbones.dlib_resnet import DLIB_RESNET
from lib.models.backbones.efficientnet_lite import EFFICIENTNET_LITE0
from lib.models.backbones.efficientnet_v2 import EFFICIENTNETV2_B0
from lib.models.backbones.mobilenet import MOBILENET
from lib.models.backbones.vgg_face import VGG_FACE

if TYPE_CHECKING:
    import keras

BACKBONES = {
    "compact": COMPACT,
    "vgg-face": VGG_FACE,
    "dlib-resnet": DLIB_RESNET,
    "efficientnet-lite0": EFFICIENTNET_LITE0,
    "efficientnetv2-b0": EFFICIENTNETV2_B0,
    "mobilenet": MOBILENET,
}

if TYPE_CHECKING:
    BackboneName = str
else:
    BackboneName = Literal[tuple(BACKBONES)]
    """The names, as choices for the command line."""


def load_weights(backbone: "keras.Model", file: Path) -> None:
    """Fill a backbone with the weights of a `.h5`, `.weights.h5` or `.keras` file.

    Raises:
        UserError: the file cannot be read, or is of another network.
    """
    import keras

    try:
        if file.suffix == ".keras":
            other = keras.models.load_model(file, compile=False, safe_mode=True)
            backbone.set_weights(other.get_weights())
        else:
            backbone.load_weights(file)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--weights {str(file)!r} does not fit {backbone.name}: {reason}") from None
