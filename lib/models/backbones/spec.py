"""The description of a backbone: how it is built, and its defaults."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.network_input import Pixels

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and its defaults.

    Attributes:
        build: size in pixels, or None for any size → network: input float (n, size, size, 3) →
            features float (n, features).
        size: of the crops, in pixels.
        pixels: how crops become input.
        any_size: whether the network takes crops of several sizes in one run.
        free: layers that are trained even while the backbone is frozen.
        frozen_epochs: see `lib.training.recipe.Recipe`.
        learning_rate: the same.
        gpu_batch: faces of `size` whose training, all layers and in half precision, takes most of a GPU
            of 16 GiB.
    """

    build: "Callable[[int | None], keras.Model]"
    size: int
    pixels: Pixels
    any_size: bool = True
    free: tuple[str, ...] = ()
    frozen_epochs: int = 0
    learning_rate: float = 1e-3
    gpu_batch: int = 256
