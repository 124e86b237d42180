"""The training loop, the same for one worker and for many.

Every worker runs it over the same global batches, of which it takes its part; what is random follows
from the seed, the epoch and the step alone. So a run that goes on from a checkpoint goes on as if it
had not been interrupted. The step is written out, around `strategy.run`, because `fit` of Keras 3
does not work under `MultiWorkerMirroredStrategy` (keras-team/keras issue 20585).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.bundle import Bundle
from lib.tasks import TASKS
from lib.tasks.expectation import distribution_sums, mean_distributions
from lib.training.augment import augment, mixup, plain, resized
from lib.training.checkpoint import Position
from lib.training.decoding import ahead
from lib.training.distillation import Teachers
from lib.training.faces import Faces
from lib.training.networks import Networks
from lib.training.normalisation import in_groups, statistics
from lib.training.recipe import Recipe
from lib.training.schedule import cosine, epoch_order

PREDICTED_AT_A_TIME = 256
AVERAGED = "averaged"
"""What `Trainer.arrays` calls the moving averages of the networks' variables."""
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
        self._targets = {
            task: TASKS[task].targets(training.classes[task], recipe, training.spans.get(task))
            for task in recipe.tasks
        }
        self._weights = face_weights(training, recipe)
        self.distributions: dict[str, NDArray[np.float64]] = {}
        """For each task with ordered classes: the mean predicted distribution for each true class at the
        last validation, float64 (classes, classes); NaN where there is no face."""
        self.steps = len(training) // (recipe.batch_size * workers)
        keras.utils.set_random_seed(recipe.seed)
        keras.mixed_precision.set_global_policy(_POLICY[recipe.precision])
        with strategy.scope():
            networks = build()
            self.networks = replace(networks, backbone=in_groups(networks.backbone))
            self._averages = {
                id(v): keras.Variable(v.numpy(), trainable=False, aggregation="only_first_replica")
                for v in self.networks.variables
                if recipe.ema_momentum and keras.backend.is_float_dtype(v.dtype)
            }
            self._optimizers = {
                "heads": self._optimizer(0, self.networks.heads_and_free),
                "backbone": self._optimizer(recipe.frozen_epochs or 0, self.networks.freezable),
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
        parts = [self._part(order, step) for step in range(position.step, self.steps)]
        for part, images in zip(parts, ahead(self._training.images, parts), strict=True):
            targets = {task: of_task[part] for task, of_task in self._targets.items()}
            loss = self._step(
                images, targets, self._weights[part], self._seed(position), size, frozen
            )
            position.losses.append(float(loss))
            position.step += 1
            after_step(position)
        faces = (position.step - first) * recipe.batch_size * self.workers
        return faces / max(time.monotonic() - started, 1e-9)

    def size_in(self, epoch: int) -> int:
        """Side of the crops in an epoch, in pixels."""
        progressive = epoch < self._recipe.progressive_epochs
        return self._recipe.progressive_size if progressive else self._size

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
        faces = self._validation.part(slice(self.rank, None, self.workers))
        kept = [v.numpy() for v in self.networks.variables]
        _assign(self.networks.variables, self.averaged())
        predicted = self.predict(faces, size)
        _assign(self.networks.variables, kept)
        mine = validation_sums(predicted, faces, self._recipe)
        totals = self._sum(tf.constant(list(mine.values()), tf.float64)).numpy().tolist()
        for task, probabilities in predicted.items():
            if TASKS[task].ordered:
                sums = distribution_sums(probabilities, faces.classes[task])
                self.distributions[task] = mean_distributions(self._sum(tf.constant(sums)).numpy())
        return validation_metrics(dict(zip(mine, totals, strict=True)), self._recipe.tasks)

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

    def predict(self, faces: Faces, size: int) -> dict[str, NDArray[np.float32]]:
        """Probabilities of faces by the weights as they are, by task (n, classes)."""
        starts = range(0, len(faces), PREDICTED_AT_A_TIME)
        parts = [slice(start, start + PREDICTED_AT_A_TIME) for start in starts]
        batches = [self._forward(images, size) for images in ahead(faces.images, parts)]
        return {
            task: np.concatenate(
                [
                    np.zeros((0, TASKS[task].classes), np.float32),
                    *(b[task].numpy() for b in batches),
                ]
            )
            for task in self._recipe.tasks
        }

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
            (self._optimizers["backbone"], self.networks.freezable),
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
        rate = recipe.learning_rate * (recipe.backbone_lr_multiplier if frozen_epochs else 1.0)
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
        self, images: Any, targets: Any, weights: Any, seed: Any, size: int, frozen: bool
    ) -> tf.Tensor:
        args = (images, targets, weights, seed, size, frozen)
        return self._strategy.run(self._step_of_one, args=args)

    def _step_of_one(
        self, images: Any, targets: Any, weights: Any, seed: Any, size: int, frozen: bool
    ) -> tf.Tensor:
        """One step on this worker's part; the optimisers add up the gradients of all workers."""
        recipe = self._recipe
        side = max(size, self._teachers.size) if self._teachers else size
        seen = plain(images, side) if recipe.plain else augment(images, side, seed)
        if self._teachers:
            answers, share = self._teachers(seen), recipe.distillation
            targets = {
                task: (1.0 - share) * of_task + share * answers[task]
                for task, of_task in targets.items()
            }
        crops = resized(seen, size)
        if recipe.mixup:
            other = tf.random.experimental.stateless_fold_in(seed, _FOR_MIXUP)
            crops, blended = mixup(crops, tuple(targets.values()), recipe.mixup, other)
            targets = dict(zip(targets, blended, strict=True))
        trained = self._trained()[: 1 if frozen else 2]
        with tf.GradientTape() as tape:
            predicted = self.networks(crops, training=True, frozen=frozen)
            losses = [TASKS[task].loss(targets[task], predicted[task], recipe) for task in targets]
            each = weights * tf.add_n(losses)
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
        _average_over_workers(statistics(self.networks.backbone))
        self._move_averages()
        return loss

    def _move_averages(self) -> None:
        """Of the statistics of normalisation, too: those of other weights would not fit."""
        if not self._averages:
            return
        steps = tf.cast(self._optimizers["heads"].iterations, tf.float32)
        # Faster at first, so that the random weights of the start are soon forgotten.
        share = 1.0 - tf.minimum(self._recipe.ema_momentum, (1.0 + steps) / (10.0 + steps))
        for variable in self.networks.variables:
            if id(variable) in self._averages:
                average = self._averages[id(variable)]
                average.assign_add(share * (variable - average))

    def _forward_of_one(self, images: Any, size: int) -> dict[str, tf.Tensor]:
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


def face_weights(faces: Faces, recipe: Recipe) -> NDArray[np.float32]:
    """How much each face counts, float32 (n,); 1 on average where one task alone has weights."""
    weights = np.ones(len(faces), np.float32)
    for name in recipe.tasks:
        weights *= TASKS[name].face_weights(faces.classes[name], recipe)
    return weights


def validation_sums(
    predicted: Mapping[str, NDArray[np.float32]], faces: Faces, recipe: Recipe
) -> dict[str, float]:
    """What a worker's part adds to each sum of `validation_metrics`."""
    loss = np.zeros(len(faces))
    sums: dict[str, float] = {}
    for name, probabilities in predicted.items():
        task, classes, spans = TASKS[name], faces.classes[name], faces.spans.get(name)
        loss += task.loss(task.targets(classes, recipe, spans), probabilities, recipe)
        sums |= task.validation_sums(probabilities, classes, spans)
    return {"val_faces": float(len(faces)), "val_loss": float(np.sum(loss)), **sums}


def validation_metrics(sums: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """Means out of the sums over all faces.

    The best epoch has the least `val_error`: the error of the first task, in the order of `TASKS`.
    """
    count = sums["val_faces"]
    metrics = {name: total / count for name, total in sums.items()} | {"val_faces": count}
    first = next(task for name, task in TASKS.items() if name in tasks)
    return {**metrics, "val_error": first.validation_error(metrics)}
