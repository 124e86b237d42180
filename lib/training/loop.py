"""The training loop on one machine."""

import logging
import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.compact import compact_trunk
from lib.models.expectation import expected_age
from lib.models.heads import GENDER_LABELS, age_head, gender_head
from lib.training.augment import augment, plain
from lib.training.losses import age_loss, gender_loss, smoothed_ages

log = logging.getLogger(__name__)

MEAN, STD = 0.5, 0.25
"""Of the crops in 0..1, about; what the trunk is given has mean 0 and standard deviation 1."""


@dataclass(frozen=True)
class Faces:
    """Labelled face crops in memory.

    Attributes:
        images: uint8 (n, side, side, 3), RGB.
        ages: int (n,), whole years in 0..100.
        genders: int (n,), index into `lib.models.heads.GENDER_LABELS`.
    """

    images: NDArray[np.uint8]
    ages: NDArray[np.int64]
    genders: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ages)


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training faces.
        size: side of the crops in pixels that the model is made for.
        small_size: side during the first epochs, which are cheaper for it.
        small_epochs: how many epochs run at `small_size`.
        batch_size: faces a step.
        learning_rate: the highest rate, reached after the warm-up; it then falls to zero as a cosine.
        warmup_epochs: epochs over which the rate rises from zero.
        weight_decay: decoupled (AdamW).
        age_sigma: label smoothing over neighbouring ages, in years.
        expectation_weight: share of the expectation term in the age loss.
        gender_weight: share of the gender loss.
        ema_momentum: of the moving average of the weights, which is what is kept at the end.
        mixed_bfloat16: compute in bfloat16 and keep float32 weights.
        seed: of the weights, the order of the data and the augmentation.
    """

    epochs: int = 36
    size: int = 80
    small_size: int = 64
    small_epochs: int = 24
    batch_size: int = 96
    learning_rate: float = 1.5e-3
    warmup_epochs: float = 1.5
    weight_decay: float = 0.05
    age_sigma: float = 2.0
    expectation_weight: float = 0.1
    gender_weight: float = 1.5
    ema_momentum: float = 0.998
    mixed_bfloat16: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Networks:
    """A trunk and the two heads on it, as separate models that share nothing but the features."""

    trunk: keras.Model
    age: keras.Model
    gender: keras.Model

    def __call__(self, crops: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Crops float (n, size, size, 3) in 0..1 → age (n, 101) and gender (n, 2) probabilities."""
        features = self.trunk((crops - MEAN) / STD, training=training)
        return self.age(features, training=training), self.gender(features, training=training)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that the optimiser changes, in a fixed order."""
        return [v for m in (self.trunk, self.age, self.gender) for v in m.trainable_variables]


def build_networks(size: int) -> Networks:
    """Build an untrained compact trunk with both heads for crops of `size` pixels."""
    trunk = compact_trunk(size)
    features = int(trunk.output.shape[-1])
    return Networks(trunk, age_head(features), gender_head(features))


def train(training: Faces, validation: Faces, recipe: Recipe) -> Networks:
    """Train a compact model from scratch; log one line an epoch.

    Returns:
        Float32 networks for crops of `recipe.size` pixels with the averaged weights.
    """
    keras.utils.set_random_seed(recipe.seed)
    keras.mixed_precision.set_global_policy(
        "mixed_bfloat16" if recipe.mixed_bfloat16 else "float32"
    )
    # The trunk knows no size of its own: one set of variables serves both resolutions.
    networks = build_networks(None)  # type: ignore[arg-type]
    optimizer = _optimizer(recipe, steps_per_epoch=len(training) // recipe.batch_size)
    optimizer.build(networks.variables)
    targets = smoothed_ages(training.ages, recipe.age_sigma)
    order = np.random.default_rng(recipe.seed)

    @tf.function(reduce_retracing=False)
    def step(images: tf.Tensor, ages: tf.Tensor, genders: tf.Tensor, size: int) -> tf.Tensor:
        crops = augment(images, size)
        with tf.GradientTape() as tape:
            age, gender = networks(crops, training=True)
            loss = tf.reduce_mean(
                age_loss(ages, age, recipe.expectation_weight)
                + recipe.gender_weight * gender_loss(genders, gender)
            )
        optimizer.apply(tape.gradient(loss, networks.variables), networks.variables)
        return loss

    for epoch in range(recipe.epochs):
        started = time.monotonic()
        size = recipe.small_size if epoch < recipe.small_epochs else recipe.size
        batches = _batches(order.permutation(len(training)), recipe.batch_size)
        losses = [step(training.images[b], targets[b], training.genders[b], size) for b in batches]
        seconds = time.monotonic() - started
        mae, accuracy = validate(networks, validation, size)
        log.info(
            "epoch %d/%d at %d px · loss %.3f · validation MAE %.2f years, gender %.1f%% · %.0f images/s",
            epoch + 1, recipe.epochs, size, float(np.mean(losses)), mae, 100 * accuracy,
            len(batches) * recipe.batch_size / seconds,
        )  # fmt: skip
    optimizer.finalize_variable_values(networks.variables)
    return _as_float32(networks, recipe.size)


def predict(networks: Networks, faces: Faces, size: int) -> tuple[NDArray, NDArray]:
    """Probabilities of all faces: age float32 (n, 101) and gender float32 (n, 2)."""

    @tf.function
    def forward(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return networks(plain(images, size), training=False)

    chunks = np.array_split(faces.images, max(1, len(faces) // 256))
    ages, genders = zip(*(forward(c) for c in chunks), strict=True)
    return np.concatenate(ages), np.concatenate(genders)


def validate(networks: Networks, faces: Faces, size: int) -> tuple[float, float]:
    """Mean absolute error of the expected age in years, and the share of right genders."""
    age, gender = predict(networks, faces, size)
    error = np.abs(expected_age(age).age - faces.ages)
    return float(error.mean()), float((gender.argmax(axis=1) == faces.genders).mean())


def gender_index(genders: list[str]) -> NDArray[np.int64]:
    """Indices into `GENDER_LABELS`."""
    return np.array([GENDER_LABELS.index(g) for g in genders], dtype=np.int64)


def _optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    warmup = int(recipe.warmup_epochs * steps_per_epoch)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=recipe.epochs * steps_per_epoch - warmup,
        warmup_target=recipe.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        rate,
        weight_decay=recipe.weight_decay,
        clipnorm=5.0,
        use_ema=True,
        ema_momentum=recipe.ema_momentum,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _batches(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[i : i + size] for i in range(0, len(order) - size + 1, size)]


def _as_float32(networks: Networks, size: int) -> Networks:
    keras.mixed_precision.set_global_policy("float32")
    plain_networks = build_networks(size)
    for name in ("trunk", "age", "gender"):
        getattr(plain_networks, name).set_weights(getattr(networks, name).get_weights())
    return plain_networks
