"""The training loop, the same for one worker and for many.

Every worker runs it over the same global batches, of which it takes its part; what is random follows
from the seed, the epoch and the step alone. So a run that goes on from a checkpoint goes on as if it
had not been interrupted. The step is written out, around `strategy.run`, because `fit` of Keras 3
does not work under `MultiWorkerMirroredStrategy` (keras-team/keras issue 20585).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.bundle import Bundle, Task
from lib.models.expectation import AGE_CLASSES, expected_age
from lib.models.heads import GENDER_LABELS
from lib.training.augment import augment, mixup, plain, resized
from lib.training.checkpoint import Position
from lib.training.distillation import Teachers
from lib.training.faces import Faces
from lib.training.losses import age_loss, age_weights, gender_loss, smoothed_ages
from lib.training.networks import Networks
from lib.training.normalisation import in_groups, statistics
from lib.training.recipe import Recipe
from lib.training.schedule import cosine, epoch_order

PREDICTED_AT_A_TIME = 256
AVERAGED = "averaged"
"""What `Trainer.arrays` calls the moving averages of the networks' variables."""
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
        teachers: Sequence[Bundle] = (),
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
            teachers: models whose answers are learnt, too; each knows the recipe's tasks.
        """
        self._strategy = strategy
        self._recipe = recipe
        self._size = size
        self._training, self._validation = training, validation
        self.rank, self.workers = rank, workers
        self._targets = smoothed_ages(training.ages, recipe.age_sigma)
        self._genders = np.eye(len(GENDER_LABELS), dtype=np.float32)[training.genders]
        self._weights = age_weights(training.ages, recipe.balance)
        self.distributions = np.full((AGE_CLASSES, AGE_CLASSES), np.nan)
        """Mean predicted distribution for each true age at the last validation, by
        `mean_distributions`, float64 (101, 101); NaN where there is no face."""
        self.steps = len(training) // (recipe.batch_size * workers)
        keras.utils.set_random_seed(recipe.seed)
        keras.mixed_precision.set_global_policy(_POLICY[recipe.precision])
        with strategy.scope():
            networks = build()
            self.networks = replace(networks, trunk=in_groups(networks.trunk))
            self._averages = {
                id(v): keras.Variable(v.numpy(), trainable=False, aggregation="only_first_replica")
                for v in self.networks.variables
                if recipe.ema and keras.backend.is_float_dtype(v.dtype)
            }
            self._optimizers = {
                "heads": self._optimizer(0, self.networks.heads_and_free),
                "trunk": self._optimizer(recipe.frozen_epochs or 0, self.networks.freezable),
            }
        self._teachers = Teachers(teachers, recipe.tasks, recipe.precision) if teachers else None
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
        size = self.size_in(position.epoch)
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

    def size_in(self, epoch: int) -> int:
        """Side of the crops in an epoch, in pixels."""
        small = epoch < self._recipe.small_epochs
        return self._recipe.small_size if small else self._size

    def global_losses(self, losses: list[float]) -> list[float]:
        """The sum over all workers of what each lost in each step."""
        if not losses:
            return []
        return self._sum(tf.constant(losses, tf.float64)).numpy().tolist()

    def validate(self, size: int) -> dict[str, float]:
        """Measure the averages on all validation faces, each exactly once.

        They see the size that is trained at: a network that has only seen small crops errs on others.
        Every worker takes its part, of whatever length, and only sums are exchanged.
        """
        mine = slice(self.rank, None, self.workers)
        faces = Faces(
            self._validation.images[mine],
            self._validation.ages[mine],
            self._validation.genders[mine],
        )
        kept = [v.numpy() for v in self.networks.variables]
        _assign(self.networks.variables, self.averaged())
        age, gender = self.predict(faces, size)
        _assign(self.networks.variables, kept)
        metrics = self._sum(tf.constant(validation_sums(age, gender, faces, self._recipe))).numpy()
        sums = self._sum(tf.constant(distribution_sums(age, faces.ages))).numpy()
        with np.errstate(invalid="ignore"):  # 0 / 0 where nobody is of that age
            self.distributions = sums[:, :AGE_CLASSES] / sums[:, AGE_CLASSES:]
        return validation_metrics(metrics, self._recipe.tasks)

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
        return {**state, AVERAGED: self.averaged()}

    def restore(self, arrays: dict[str, list[NDArray[Any]]]) -> None:
        """Take up a state of `arrays`."""
        for name, group in self._variables().items():
            _assign(group, arrays[name])
        for variable, value in zip(self.networks.variables, arrays[AVERAGED], strict=True):
            if id(variable) in self._averages:
                self._averages[id(variable)].assign(value)

    def averaged(self) -> list[NDArray[Any]]:
        """The networks' variables, averaged where they are."""
        return [self._averages.get(id(v), v).numpy() for v in self.networks.variables]

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
        side = max(size, self._teachers.size) if self._teachers else size
        seen = plain(images, side) if recipe.plain else augment(images, side, seed)
        if self._teachers:
            answers, share = self._teachers(seen), recipe.distillation
            ages = (1.0 - share) * ages + share * answers.get("age", ages)
            genders = (1.0 - share) * genders + share * answers.get("gender", genders)
        crops = resized(seen, size)
        if recipe.mixup:
            other = tf.random.experimental.stateless_fold_in(seed, _FOR_MIXUP)
            mixed = mixup(crops, (ages, genders), recipe.mixup, other)
            crops, (ages, genders) = mixed
        trained = self._trained()[: 1 if frozen else 2]
        with tf.GradientTape() as tape:
            age, gender = self.networks(crops, training=True, frozen=frozen)
            losses = {
                "age": lambda: age_loss(ages, age, recipe.expectation_weight),
                "gender": lambda: recipe.gender_weight * gender_loss(genders, gender),
            }
            each = weights * tf.add_n([losses[task]() for task in recipe.tasks])
            loss = tf.reduce_sum(each) / (recipe.batch_size * self.workers)
            # By the least scale: what is too much for one optimiser's variables lowers it.
            scale = tf.reduce_min([optimizer.scale_loss(1.0) for optimizer, _ in trained])
            scaled = loss * scale
        gradients = tape.gradient(scaled, [variables for _, variables in trained])
        if recipe.precision == "float16":
            gradients = _unusable_everywhere(gradients)
        for (optimizer, variables), of_these in zip(trained, gradients, strict=True):
            if recipe.precision == "float16":  # each optimiser undoes a scale of its own
                of_these = [g * (optimizer.scale_loss(1.0) / scale) for g in of_these]
            optimizer.apply(of_these, variables)
        _average_over_workers(statistics(self.networks.trunk))
        self._move_averages()
        return loss

    def _move_averages(self) -> None:
        """Of the statistics of normalisation, too: those of other weights would not fit."""
        if not self._averages:
            return
        steps = tf.cast(self._optimizers["heads"].iterations, tf.float32)
        # Faster at first, so that the random weights of the start are soon forgotten.
        share = 1.0 - tf.minimum(self._recipe.ema, (1.0 + steps) / (10.0 + steps))
        for variable in self.networks.variables:
            if id(variable) in self._averages:
                average = self._averages[id(variable)]
                average.assign_add(share * (variable - average))

    def _forward_of_one(self, images: Any, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        return self.networks(plain(images, size), training=False)

    def _sum_of_all(self, values: tf.Tensor) -> tf.Tensor:
        each = self._strategy.run(lambda v: tf.identity(v), args=(values,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)


def _unusable_everywhere(groups: list[list[tf.Tensor]]) -> list[list[tf.Tensor]]:
    """Gradients that are infinite on all workers where they are not finite on one.

    The optimisers decide for each worker alone whether a step counts, and those that take it wait for
    the others.
    """
    unusable = tf.add_n(
        [
            tf.reduce_sum(1.0 - tf.cast(tf.math.is_finite(g), tf.float32))
            for of in groups
            for g in of
        ]
    )
    context = tf.distribute.get_replica_context()
    unusable = context.all_reduce(tf.distribute.ReduceOp.SUM, unusable)
    factor = tf.where(unusable > 0, math.inf, 1.0)
    return [[g * tf.cast(factor, g.dtype) for g in of] for of in groups]


def _average_over_workers(variables: Sequence[keras.Variable]) -> None:
    if not variables:
        return
    context = tf.distribute.get_replica_context()
    means = context.all_reduce(tf.distribute.ReduceOp.MEAN, [tf.identity(v) for v in variables])
    for variable, mean in zip(variables, means, strict=True):
        variable.assign(mean)


def _assign(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


_POLICY = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def validation_sums(
    age: NDArray[np.float32], gender: NDArray[np.float32], faces: Faces, recipe: Recipe
) -> NDArray[np.float64]:
    """What a worker's part adds to each sum of `validation_metrics`, float64 (5,)."""
    error = np.abs(expected_age(age).age - faces.ages)
    right = gender.argmax(axis=1) == faces.genders
    genders = np.eye(len(GENDER_LABELS), dtype=np.float32)[faces.genders]
    loss = np.zeros(len(faces))
    if "age" in recipe.tasks:
        smoothed = smoothed_ages(faces.ages, recipe.age_sigma)
        loss += age_loss(smoothed, age, recipe.expectation_weight)
    if "gender" in recipe.tasks:
        loss += recipe.gender_weight * gender_loss(genders, gender)
    return np.array(
        [len(faces), np.sum(loss), error.sum(), (error <= _CLOSE).sum(), right.sum()], np.float64
    )


def distribution_sums(age: NDArray[np.float32], true_age: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a worker's part adds to the distributions of each true age, and its faces of that age.

    Args:
        age: probabilities (n, 101).
        true_age: (n,).

    Returns:
        float64 (101, 102): sums of probabilities, and in the last column the number of faces.
    """
    sums = np.zeros((AGE_CLASSES, AGE_CLASSES + 1))
    np.add.at(sums, true_age, np.pad(age, ((0, 0), (0, 1)), constant_values=1.0))
    return sums


def validation_metrics(sums: NDArray[np.float64], tasks: Sequence[Task]) -> dict[str, float]:
    """Means out of the sums over all faces.

    `val_error` is what the best epoch has least of: the error in years or, where no age is trained, the
    share of wrong genders.
    """
    count, loss, error, close, right = sums.tolist()
    metrics = {"val_faces": count, "val_loss": loss / count}
    if "age" in tasks:
        metrics |= {"val_mae": error / count, "val_cs5": close / count}
    if "gender" in tasks:
        metrics |= {"val_gender_accuracy": right / count}
    return {**metrics, "val_error": error / count if "age" in tasks else 1 - right / count}
