"""The two ways in which faces reach the published VGG-Face models; a bundle's card names its own.

The weights were trained one way and are used the other way by the package that publishes them. Ages
differ between the two, so the importer of the weights chooses one.
"""

from dataclasses import dataclass
from typing import Literal

from lib.models.backbones.vgg_face_weights import SIZE
from lib.network_input import CropSpec, Pixels

Name = Literal["deepface", "training"]


@dataclass(frozen=True)
class Preprocessing:
    """How faces are cut out, and how crops become input."""

    crop: CropSpec
    pixels: Pixels


PREPROCESSINGS: dict[Name, Preprocessing] = {
    # As `deepface` 0.0.103 prepares faces: BGR in 0..1, no mean.
    "deepface": Preprocessing(
        CropSpec(SIZE, "eyes"), Pixels(channels="bgr", scale=1 / 255, mean=0.0, std=1.0)
    ),
    # As the crops of IMDB-WIKI, with 40% of the face on each side, were fed to training: RGB in 0..1.
    "training": Preprocessing(
        CropSpec(SIZE, "stretched", margin=0.4),
        Pixels(channels="rgb", scale=1 / 255, mean=0.0, std=1.0),
    ),
}
