"""A backbone and a head for each task on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from lib.models.backbones.registry import BACKBONES, BackboneName, load_weights
from lib.models.heads import head
from lib.models.model_card import BACKBONE
from lib.network_input import Pixels, network_input
from lib.tasks import TASKS


@dataclass(frozen=True)
class Networks:
    """Separate models that share nothing but the features.

    Attributes:
        backbone: input float (n, size, size, 3) → features float (n, features).
        heads: of each task that is trained: features → probabilities float32 (n, classes).
        pixels: how crops become input.
        free: names of the backbone's layers that are trained even while it is frozen.
    """

    backbone: keras.Model
    heads: Mapping[str, keras.Model]
    pixels: Pixels
    free: tuple[str, ...] = ()

    def __call__(
        self, crops: tf.Tensor, training: bool, frozen: bool = False
    ) -> dict[str, tf.Tensor]:
        """RGB crops float32 (n, size, size, 3) in 0..1 → by task (n, classes).

        A backbone that is frozen as a whole keeps its normalisation statistics, too.
        """
        x = network_input(crops, self.pixels, white=1.0)
        updated = training and (not frozen or bool(self.free))
        features = self.backbone(x, training=updated)
        return {task: head(features, training=training) for task, head in self.heads.items()}

    @property
    def models(self) -> dict[str, keras.Model]:
        """By name, as in a bundle."""
        return {BACKBONE: self.backbone, **self.heads}

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a checkpoint must hold, in a fixed order: weights, statistics, states of seeds."""
        return [v for model in self.models.values() for v in model.variables]

    @property
    def heads_and_free(self) -> list[keras.Variable]:
        """What is trained even while the backbone is frozen."""
        free = [v for name in self.free for v in self.backbone.get_layer(name).trainable_variables]
        return [*free, *(v for head in self.heads.values() for v in head.trainable_variables)]

    @property
    def freezable(self) -> list[keras.Variable]:
        """The other weights of the backbone."""
        free = {id(v) for name in self.free for v in self.backbone.get_layer(name).variables}
        return [v for v in self.backbone.trainable_variables if id(v) not in free]


def build_networks(
    backbone: BackboneName,
    size: int | None = None,
    dropout: float = 0.3,
    weights: Path | None = None,
    tasks: Sequence[str] = tuple(TASKS),
) -> Networks:
    """Build a backbone, with random weights or those of a file, and untrained heads.

    Args:
        backbone: which one.
        size: side of the crops in pixels; None: any, for backbones that can.
        dropout: of the heads.
        weights: of the backbone.
        tasks: of the heads.

    Raises:
        UserError: the weights do not fit.
    """
    spec = BACKBONES[backbone]
    network = spec.build(size)
    if weights is not None:
        load_weights(network, weights)
    features = int(network.output.shape[-1])
    heads = {task: head(task, features, dropout) for task in tasks}
    return Networks(network, heads, pixels=spec.pixels, free=spec.free)
