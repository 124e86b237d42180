"""The training loop, the same for one worker and for many.

Every worker runs it over the same global batches, of which it takes its part; what is random follows
from the seed, the epoch and the step alone. So a run that goes on from a checkpoint goes on as if it
had not been interrupted. The step is written out, around `strategy.run`, because `fit` of Keras 3
does not work under `MultiWorkerMirroredStrategy` (keras-team/keras issue 20585).
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.expectation import expected_age
from lib.models.heads import GENDER_LABELS
from lib.training.augment import augment, mixup, plain
from lib.training.checkpoint import Position
from lib.training.faces import Faces
from lib.training.losses import age_loss, age_weights, gender_loss, smoothed_ages
from lib.training.networks import Networks
from lib.training.recipe import Recipe
from lib.training.schedule import cosine, epoch_order

PREDICTED_AT_A_TIME = 256
AVERAGED = "averaged"
"""What `Trainer.arrays` calls the networks' variables with averaged weights, of the last validation."""
_CLOSE = 5.0  # years: for CS@5
_FOR_MIXUP = 1 << 30


class Trainer:
    """The state of a run on one worker. All workers make the same calls in the same order."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        build: Callable[[], Networks],
        recipe: Recipe,
        size: int,
        training: Faces,
        validation: Faces,
        rank: int,
        workers: int,
    ) -> None:
        """Build networks and optimisers.

        Args:
            strategy: of all workers, with one replica on each.
            build: makes the networks; called under the strategy.
            recipe: how to train, with nothing left to the backbone.
            size: of the crops, in pixels.
            training: all faces to train on.
            validation: all faces to validate on.
            rank: number of this worker, from 0.
            workers: how many there are.
        """
        self._strategy = strategy
        self._recipe = recipe
        self._size = size
        self._training, self._validation = training, validation
        self.rank, self.workers = rank, workers
        self._targets = smoothed_ages(training.ages, recipe.age_sigma)
        self._genders = np.eye(len(GENDER_LABELS), dtype=np.float32)[training.genders]
        self._weights = age_weights(training.ages, recipe.balance)
        self._averaged: list[NDArray[Any]] = []
        self.steps = len(training) // (recipe.batch_size * workers)
        keras.utils.set_random_seed(recipe.seed)
        keras.mixed_precision.set_global_policy(_POLICY[recipe.precision])
        with strategy.scope():
            self.networks = build()
            self._optimizers = {
                "heads": self._optimizer(0, self.networks.heads_and_free),
                "trunk": self._optimizer(recipe.frozen_epochs or 0, self.networks.freezable),
            }
        self._step = tf.function(self._step_of_all, reduce_retracing=False)
        self._forward = tf.function(self._forward_of_one, reduce_retracing=False)
        self._sum = tf.function(self._sum_of_all, reduce_retracing=True)

    def train_epoch(self, position: Position, after_step: Callable[[Position], None]) -> float:
        """Train from a position to the end of its epoch.

        Args:
            position: is moved on after every step; its losses are those of this worker's part until
                the epoch or `global_losses` ends.
            after_step: called after every step.

        Returns:
            Faces a second of all workers.
        """
        recipe = self._recipe
        size = recipe.small_size if position.epoch < recipe.small_epochs else self._size
        frozen = recipe.frozen_epochs == -1 or position.epoch < (recipe.frozen_epochs or 0)
        order = epoch_order(len(self._training), position.epoch, recipe.seed)
        started, first = time.monotonic(), position.step
        while position.step < self.steps:
            part = self._part(order, position.step)
            loss = self._step(
                self._training.images[part], self._targets[part], self._genders[part],
                self._weights[part], self._seed(position), size, frozen,
            )  # fmt: skip
            position.losses.append(float(loss))
            position.step += 1
            after_step(position)
        faces = (position.step - first) * recipe.batch_size * self.workers
        return faces / max(time.monotonic() - started, 1e-9)

    def global_losses(self, losses: list[float]) -> list[float]:
        """The sum over all workers of what each lost in each step."""
        if not losses:
            return []
        return self._sum(tf.constant(losses, tf.float64)).numpy().tolist()

    def validate(self, size: int | None = None) -> dict[str, float]:
        """Measure the averaged weights on all validation faces, each exactly once.

        Every worker takes its part, of whatever length, and only sums are exchanged.
        """
        mine = slice(self.rank, None, self.workers)
        faces = Faces(
            self._validation.images[mine],
            self._validation.ages[mine],
            self._validation.genders[mine],
        )
        kept = [v.numpy() for v in self.networks.variables]
        self._average()
        self._averaged = [v.numpy() for v in self.networks.variables]
        age, gender = self.predict(faces, size or self._size)
        for variable, value in zip(self.networks.variables, kept, strict=True):
            variable.assign(value)
        sums = self._sum(tf.constant(validation_sums(age, gender, faces, self._recipe))).numpy()
        return validation_metrics(sums)

    def workers_apart(self) -> float:
        """The largest relative difference between the weights' checksums of any two workers.

        All have the same weights after every step; above rounding it means that they came apart.
        """
        weights = [
            w.numpy().astype(np.float64) for m in self.networks.models.values() for w in m.weights
        ]
        mine = np.zeros((self.workers, 2))
        mine[self.rank] = sum(np.abs(w).sum() for w in weights), sum((w * w).sum() for w in weights)
        every = self._sum(tf.constant(mine)).numpy()
        return float(np.max(np.ptp(every, axis=0) / every.max(axis=0)))

    def predict(self, faces: Faces, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities of faces by the weights as they are: age (n, 101) and gender (n, 2)."""
        ages, genders = [np.zeros((0, 101), np.float32)], [np.zeros((0, 2), np.float32)]
        for start in range(0, len(faces), PREDICTED_AT_A_TIME):
            batch = np.asarray(faces.images[start : start + PREDICTED_AT_A_TIME])
            age, gender = self._forward(batch, size)
            ages.append(age.numpy())
            genders.append(gender.numpy())
        return np.concatenate(ages), np.concatenate(genders)

    def arrays(self) -> dict[str, list[NDArray[Any]]]:
        """All that the next step depends on, besides the position."""
        state = {name: [v.numpy() for v in group] for name, group in self._variables().items()}
        return {**state, AVERAGED: self._averaged}

    def restore(self, arrays: dict[str, list[NDArray[Any]]]) -> None:
        """Take up a state of `arrays`."""
        self._averaged = arrays.get(AVERAGED, [])
        for name, group in self._variables().items():
            for variable, value in zip(group, arrays[name], strict=True):
                variable.assign(value)

    def _average(self) -> None:
        if self._recipe.ema:
            for optimizer, variables in self._trained():
                if int(optimizer.iterations.numpy()):
                    optimizer.finalize_variable_values(variables)

    def _variables(self) -> dict[str, list[Any]]:
        return {
            "networks": self.networks.variables,
            **{name: optimizer.variables for name, optimizer in self._optimizers.items()},
        }

    def _trained(self) -> list[tuple[keras.optimizers.Optimizer, list[keras.Variable]]]:
        return [
            (self._optimizers["heads"], self.networks.heads_and_free),
            (self._optimizers["trunk"], self.networks.freezable),
        ]

    def _part(self, order: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """This worker's part of a global batch."""
        size = self._recipe.batch_size
        start = step * size * self.workers + self.rank * size
        return order[start : start + size]

    def _seed(self, position: Position) -> tf.Tensor:
        """Of the chance of one step on one worker."""
        step = position.epoch * self.steps + position.step
        return tf.constant([self._recipe.seed, step * self.workers + self.rank], tf.int32)

    def _optimizer(
        self, frozen_epochs: int, variables: list[keras.Variable]
    ) -> keras.optimizers.Optimizer:
        """For variables that stay as they are for some epochs, or -1: for all."""
        recipe = self._recipe
        assert recipe.learning_rate is not None
        # Of updates: that of several accumulated steps is one.
        epochs = max(1, recipe.epochs - max(0, frozen_epochs))
        steps = max(1, epochs * self.steps // recipe.accumulate)
        warmup = int(recipe.warmup_epochs * self.steps) // recipe.accumulate
        rate = recipe.learning_rate * (recipe.trunk_rate if frozen_epochs else 1.0)
        optimizer = keras.optimizers.AdamW(
            cosine(rate, steps, min(warmup, steps - 1)),
            weight_decay=recipe.weight_decay,
            clipnorm=5.0,
            use_ema=recipe.ema > 0,
            ema_momentum=recipe.ema or 0.99,
            gradient_accumulation_steps=recipe.accumulate if recipe.accumulate > 1 else None,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        if recipe.precision == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(variables)
        return optimizer

    def _step_of_all(
        self, images: Any, ages: Any, genders: Any, weights: Any, seed: Any, size: int, frozen: bool
    ) -> tf.Tensor:
        args = (images, ages, genders, weights, seed, size, frozen)
        return self._strategy.run(self._step_of_one, args=args)

    def _step_of_one(
        self, images: Any, ages: Any, genders: Any, weights: Any, seed: Any, size: int, frozen: bool
    ) -> tf.Tensor:
        """One step on this worker's part; the optimisers add up the gradients of all workers."""
        recipe = self._recipe
        crops = plain(images, size) if recipe.plain else augment(images, size, seed)
        if recipe.mixup:
            other = tf.random.experimental.stateless_fold_in(seed, _FOR_MIXUP)
            mixed = mixup(crops, (ages, genders), recipe.mixup, other)
            crops, (ages, genders) = mixed
        trained = self._trained()[: 1 if frozen else 2]
        with tf.GradientTape() as tape:
            age, gender = self.networks(crops, training=True, frozen=frozen)
            each = age_loss(ages, age, recipe.expectation_weight)
            each = weights * (each + recipe.gender_weight * gender_loss(genders, gender))
            loss = tf.reduce_sum(each) / (recipe.batch_size * self.workers)
            scaled = self._optimizers["heads"].scale_loss(loss)
        gradients = tape.gradient(scaled, [variables for _, variables in trained])
        scale = self._optimizers["heads"].scale_loss(1.0)
        for (optimizer, variables), of_these in zip(trained, gradients, strict=True):
            if recipe.precision == "float16":  # each optimiser undoes a scale of its own
                of_these = [g * (optimizer.scale_loss(1.0) / scale) for g in of_these]
            optimizer.apply(of_these, variables)
        return loss

    def _forward_of_one(self, images: Any, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        return self.networks(plain(images, size), training=False)

    def _sum_of_all(self, values: tf.Tensor) -> tf.Tensor:
        each = self._strategy.run(lambda v: tf.identity(v), args=(values,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)


_POLICY = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def validation_sums(
    age: NDArray[np.float32], gender: NDArray[np.float32], faces: Faces, recipe: Recipe
) -> NDArray[np.float64]:
    """What a worker's part adds to each sum of `validation_metrics`, float64 (5,)."""
    error = np.abs(expected_age(age).age - faces.ages)
    right = gender.argmax(axis=1) == faces.genders
    genders = np.eye(len(GENDER_LABELS), dtype=np.float32)[faces.genders]
    loss = age_loss(smoothed_ages(faces.ages, recipe.age_sigma), age, recipe.expectation_weight)
    loss += recipe.gender_weight * gender_loss(genders, gender)
    return np.array(
        [len(faces), np.sum(loss), error.sum(), (error <= _CLOSE).sum(), right.sum()], np.float64
    )


def validation_metrics(sums: NDArray[np.float64]) -> dict[str, float]:
    """Means out of the sums over all faces."""
    count, loss, error, close, right = sums.tolist()
    return {
        "val_faces": count,
        "val_loss": loss / count,
        "val_mae": error / count,
        "val_cs5": close / count,
        "val_gender_accuracy": right / count,
    }
