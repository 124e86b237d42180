"""A trunk and the two heads on it."""

from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from lib.models.backbones.registry import BACKBONES, Spec, load_weights
from lib.models.bundle import TASKS, Pixels, Task
from lib.models.heads import age_head, gender_head
from lib.training.recipe import Backbone


@dataclass(frozen=True)
class Networks:
    """Separate models that share nothing but the features.

    Attributes:
        trunk: input float (n, size, size, 3) → features float (n, features).
        age: features → probabilities float32 (n, 101).
        gender: features → probabilities float32 (n, 2) of `lib.models.heads.GENDER_LABELS`.
        pixels: how crops become input.
        free: names of the trunk's layers that are trained even while it is frozen.
        tasks: those of the heads that are trained and kept.
    """

    trunk: keras.Model
    age: keras.Model
    gender: keras.Model
    pixels: Pixels
    free: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = TASKS

    def __call__(
        self, crops: tf.Tensor, training: bool, frozen: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """RGB crops float32 (n, size, size, 3) in 0..1 → age (n, 101) and gender (n, 2).

        A trunk that is wholly frozen keeps its statistics, too.
        """
        x = crops if self.pixels.channels == "rgb" else crops[..., ::-1]
        x = (x * (255.0 * self.pixels.scale) - self.pixels.mean) / self.pixels.std
        of_trunk = training and (not frozen or bool(self.free))
        features = self.trunk(x, training=of_trunk)
        return self.age(features, training=training), self.gender(features, training=training)

    @property
    def models(self) -> dict[str, keras.Model]:
        """By name, as in a bundle."""
        heads = {"age": self.age, "gender": self.gender}
        return {"trunk": self.trunk, **{task: heads[task] for task in self.tasks}}

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a checkpoint must hold, in a fixed order: weights, statistics, states of seeds."""
        return [v for model in self.models.values() for v in model.variables]

    @property
    def heads_and_free(self) -> list[keras.Variable]:
        """What is trained even while the trunk is frozen."""
        free = [v for name in self.free for v in self.trunk.get_layer(name).trainable_variables]
        heads = [self.models[task] for task in self.tasks]
        return [*free, *(v for head in heads for v in head.trainable_variables)]

    @property
    def freezable(self) -> list[keras.Variable]:
        """The other weights of the trunk."""
        free = {id(v) for name in self.free for v in self.trunk.get_layer(name).variables}
        return [v for v in self.trunk.trainable_variables if id(v) not in free]


def build_networks(
    backbone: Backbone,
    size: int | None = None,
    dropout: float = 0.3,
    weights: Path | None = None,
    tasks: tuple[Task, ...] = TASKS,
) -> Networks:
    """Build a trunk, with random weights or those of a file, and untrained heads.

    Args:
        backbone: which trunk.
        size: side of the crops in pixels; None: any, for trunks that can.
        dropout: of the heads.
        weights: of the trunk.
        tasks: see `Networks`.

    Raises:
        UserError: the weights do not fit.
    """
    spec: Spec = BACKBONES[backbone]
    trunk = spec.build(size)  # type: ignore[arg-type]
    if weights is not None:
        load_weights(trunk, weights)
    features = int(trunk.output.shape[-1])
    heads = age_head(features, dropout), gender_head(features, dropout)
    return Networks(trunk, *heads, pixels=spec.pixels, free=spec.free, tasks=tasks)
