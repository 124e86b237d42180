"""What a network is fed with: how faces are cropped, and how their pixels become numbers.

`network_input` is the only conversion. Training, scoring, distillation and the conversion of weights
call it, so that none of them can differ from the others.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

Point = tuple[float, float]
Align = Literal["box", "landmarks", "stretched", "eyes"]
Channels = Literal["rgb", "bgr"]

# Where ArcFace has the five landmarks in its crops of 112 x 112 (Deng et al. 2019).
ARCFACE_TEMPLATE: tuple[Point, ...] = (
    (38.2946 / 112, 51.6963 / 112),
    (73.5318 / 112, 51.5014 / 112),
    (56.0252 / 112, 71.7366 / 112),
    (41.5493 / 112, 92.3655 / 112),
    (70.7299 / 112, 92.2041 / 112),
)


@dataclass(frozen=True)
class CropSpec:
    """How a model wants its faces cropped; stored in its card.

    Attributes:
        size: Side of the crop in pixels.
        align: "box": the square around the box's centre with the box's longer side, upright.
            "landmarks": rotated, scaled and shifted so that the landmarks lie on the template, by
            least squares.
            "stretched": the box with its margin, whatever its shape, resized to the square.
            "eyes": as the package `deepface` does it: rotated by the line through the eyes, about the
            box's centre; the box without margin, in whole pixels; scaled, without averaging, to fit
            into the square, its sides truncated to whole pixels; and the rest black.
        margin: For "box" and "stretched": share of the box's side, with "box" of the longer one,
            that is added on each side.
        template: For "landmarks": x and y of the five landmarks, in the order of `Detections`, as
            shares of the crop's side.
    """

    size: int
    align: Align
    margin: float = 0.0
    template: tuple[Point, ...] = ARCFACE_TEMPLATE

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"the size of a crop must be positive, not {self.size}")
        if self.align not in get_args(Align):
            choices = ", ".join(get_args(Align))
            raise ValueError(f"faces are aligned by one of {choices}, not by {self.align!r}")
        if self.margin <= -0.5:
            raise ValueError(f"a margin of {self.margin} leaves nothing of the box")
        if np.shape(self.template) != (5, 2):
            raise ValueError("the template must be five points, x and y")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CropSpec":
        """Undo `to_dict`, also after a round trip through JSON.

        Raises:
            TypeError: A field is missing or unknown.
            ValueError: A value is out of its range.
        """
        template = tuple((float(x), float(y)) for x, y in values.get("template", ARCFACE_TEMPLATE))
        return cls(**{**values, "template": template})


@dataclass(frozen=True)
class Pixels:
    """How RGB crops become a network's input: `(channels(crop) * scale - mean) / std`.

    Attributes:
        channels: "rgb" or "bgr", the order of the input.
        scale: factor on pixels in 0..255.
        mean: of all channels, or of each one in the order of the input.
        std: of all channels.
    """

    channels: Channels = "rgb"
    scale: float = 1 / 255
    mean: float | tuple[float, float, float] = 0.5
    std: float = 0.25

    def __post_init__(self) -> None:
        if self.channels not in get_args(Channels):
            raise ValueError(f'channels are in the order "rgb" or "bgr", not {self.channels!r}')
        if not isinstance(self.mean, int | float):
            # A card has a list of them, and values that travel to workers must be immutable.
            object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
            if len(self.mean) != 3:
                raise ValueError(f"a mean is one number or three, not {self.mean}")


def network_input(crops: Any, pixels: Pixels, white: float = 255.0) -> Any:
    """Convert crops to the input of a network.

    Args:
        crops: float32 (n, size, size, 3), RGB, in 0..white; a TensorFlow tensor or a NumPy array.
        pixels: the conversion.
        white: value of a pixel of full intensity.

    Returns:
        The same kind of array, of the same shape.
    """
    x = crops if pixels.channels == "rgb" else crops[..., ::-1]
    mean = np.asarray(pixels.mean, np.float32)
    return (x * (255.0 / white * pixels.scale) - mean) / pixels.std
