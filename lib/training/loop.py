"""The training loop, the same for one worker and for many.

Every worker runs it over the same global batches, of which it takes its part; what is random follows
from the seed, the epoch and the step alone. So a run that goes on from a checkpoint goes on as if it
had not been interrupted. The step is written out, around `strategy.run`, because `fit` of Keras 3
does not work under `MultiWorkerMirroredStrategy` (keras-team/keras issue 20585).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.bundle import Bundle
from lib.tasks import TASKS
from lib.tasks.expectation import distribution_sums, mean_distributions
from lib.training.augment import augment, degrade, mixup, plain, resized
from lib.training.averages import WeightAverages
from lib.training.checkpoint import Position
from lib.training.decoding import BATCHES_AHEAD, BATCHES_AHEAD_OF_A_GPU, ahead
from lib.training.distillation import Teachers
from lib.training.faces import Faces
from lib.training.flat import FlatGroup, assign_arrays, sum_over_workers
from lib.training.networks import Networks
from lib.training.normalisation import in_groups, statistics
from lib.training.optimizer import AdamW, LossScale
from lib.training.recipe import Recipe
from lib.training.schedule import Cosine, epoch_order
from lib.training.validation import validation_metrics, validation_sums

PREDICTED_AT_A_TIME = 256
AVERAGED = "averaged"
"""What `Trainer.arrays` calls the moving averages of the networks' variables."""
_FOR_MIXUP = 1 << 30
_FOR_DEGRADING = _FOR_MIXUP + 1


@dataclass(frozen=True)
class _Part:
    """Variables that are trained alike.

    Attributes:
        name: in checkpoints.
        variables: of the networks; may be none.
        frozen_epochs: epochs at the start in which they stay as they are; -1: all.
        schedule: of the learning rate, from the first epoch in which they change.
        optimizer: of them.
    """

    name: str
    variables: list[keras.Variable]
    frozen_epochs: int
    schedule: Cosine
    optimizer: AdamW


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
        begin: Callable[[str], None] = lambda phase: None,
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
            begin: is told what begins before the first step, and "" after it.
        """
        begin("building")
        self._begin = begin
        self._is_compiled = False
        (self._device,) = strategy.extended.worker_devices
        on_gpu = ":GPU:" in self._device
        self._batches_ahead = BATCHES_AHEAD_OF_A_GPU if on_gpu else BATCHES_AHEAD
        self._strategy = strategy
        self._recipe = recipe
        self._size = size
        assert recipe.batch_size is not None
        self._batch_size = recipe.batch_size
        precision = recipe.precision or "float32"
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
        self.batch = self._batch_size * workers
        """Faces of a step of all workers."""
        self.steps = len(training) // (self._batch_size * workers)
        keras.utils.set_random_seed(recipe.seed)
        keras.mixed_precision.set_global_policy(_POLICY[precision])
        with strategy.scope():
            networks = build()
            self.networks = replace(networks, backbone=in_groups(networks.backbone))
        self._parts = [
            self._trained_part("heads", 0, self.networks.heads_and_free),
            self._trained_part("backbone", recipe.frozen_epochs or 0, self.networks.freezable),
        ]
        self._scale = LossScale(strategy) if precision == "float16" else None
        self._averages = WeightAverages(self.networks.variables, recipe.ema_momentum, strategy)
        moving = statistics(self.networks.backbone)
        self._statistics = FlatGroup(moving, strategy) if moving and workers > 1 else None
        self._teachers = Teachers(teachers, recipe.tasks, precision) if teachers else None
        self._step = tf.function(self._step_of_all, autograph=False, reduce_retracing=False)
        self._forward = tf.function(self._forward_of_one, autograph=False, reduce_retracing=False)
        self._sum = tf.function(self._sum_of_all, autograph=False, reduce_retracing=True)

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
        for batch in ahead(self._batch, parts, self._batches_ahead):
            step = (*batch, self._seed(position), self._rates(position), size, frozen)
            loss = self._step(*step) if self._is_compiled else self._first_step(step)
            position.losses.append(loss)
            # Waiting for this step would leave the device idle until the next one is there.
            position.losses[-2:-1] = map(float, position.losses[-2:-1])
            position.step += 1
            after_step(position)
        position.losses = [float(loss) for loss in position.losses]
        faces = (position.step - first) * self._batch_size * self.workers
        return faces / max(time.monotonic() - started, 1e-9)

    def _first_step(self, step: tuple[Any, ...]) -> tf.Tensor:
        self._begin("compiling")
        self._step.get_concrete_function(*step)
        self._begin("first step")
        loss = self._step(*step)
        float(loss)
        self._begin("")
        self._is_compiled = True
        return loss

    def _batch(self, part: NDArray[np.int64]) -> tuple[tf.Tensor, dict[Any, tf.Tensor], tf.Tensor]:
        """Faces, targets and weights of a part, on the device that will train on them."""
        images = self._training.images(part)
        with tf.device(self._device):
            targets = {task: tf.constant(of[part]) for task, of in self._targets.items()}
            return tf.constant(images), targets, tf.constant(self._weights[part])

    def size_in(self, epoch: int) -> int:
        """Side of the crops in an epoch, in pixels."""
        progressive = epoch < self._recipe.progressive_epochs
        return self._recipe.progressive_size if progressive else self._size

    def global_losses(self, losses: list[float]) -> list[float]:
        """The sum over all workers of what each lost in each step."""
        if not losses:
            return []
        mine = tf.constant([float(loss) for loss in losses], tf.float64)
        return self._sum(mine).numpy().tolist()

    def validate(self, size: int) -> dict[str, float]:
        """Measure the averages on all validation faces, each exactly once.

        They see the size that is trained at: a network that has only seen small crops errs on others.
        Every worker takes its part, of whatever length, and only sums are exchanged.
        """
        faces = self._validation.part(slice(self.rank, None, self.workers))
        kept = [v.numpy() for v in self.networks.variables]
        assign_arrays(self.networks.variables, self.averaged())
        predicted = self.predict(faces, size)
        assign_arrays(self.networks.variables, kept)
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
        # All of one size, of which there is one graph: the last batch repeats the last face.
        together = min(PREDICTED_AT_A_TIME, len(faces))
        rows = np.arange(len(faces))
        parts = [
            np.resize(rows[start:], together) for start in range(0, len(faces), max(1, together))
        ]
        batches = [
            self._forward(images, size)
            for images in ahead(faces.images, parts, self._batches_ahead)
        ]
        return {
            task: np.concatenate(
                [
                    np.zeros((0, TASKS[task].classes), np.float32),
                    *(batch[task].numpy() for batch in batches),
                ]
            )[: len(faces)]
            for task in self._recipe.tasks
        }

    def arrays(self) -> dict[str, list[NDArray[Any]]]:
        """All that the next step depends on, besides the position."""
        state = {name: [v.numpy() for v in group] for name, group in self._variables().items()}
        return {**state, AVERAGED: self.averaged()}

    def restore(self, arrays: dict[str, list[NDArray[Any]]]) -> None:
        """Take up a state of `arrays`."""
        for name, group in self._variables().items():
            assign_arrays(group, arrays.get(name, []))
        self._averages.restore(arrays[AVERAGED])

    def averaged(self) -> list[NDArray[Any]]:
        """The networks' variables, averaged where they are."""
        return self._averages.arrays()

    def _variables(self) -> dict[str, list[Any]]:
        return {
            "networks": self.networks.variables,
            **{part.name: part.optimizer.variables for part in self._parts if part.variables},
            "loss-scale": self._scale.variables if self._scale else [],
        }

    def _part(self, order: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """This worker's part of a global batch."""
        size = self._batch_size
        start = step * size * self.workers + self.rank * size
        return order[start : start + size]

    def _seed(self, position: Position) -> tf.Tensor:
        """Of the chance of one step on one worker."""
        step = position.epoch * self.steps + position.step
        return tf.constant([self._recipe.seed, step * self.workers + self.rank], tf.int32)

    def _rates(self, position: Position) -> tf.Tensor:
        """The learning rate of each part in a step, float32 (parts,).

        Numbers from outside: the schedule is no part of the graph.
        """
        step = position.epoch * self.steps + position.step
        rates = [
            part.schedule(
                max(0, step - max(0, part.frozen_epochs) * self.steps) // self._recipe.accumulate
            )
            for part in self._parts
        ]
        return tf.constant(rates, tf.float32)

    def _trained_part(
        self, name: str, frozen_epochs: int, variables: list[keras.Variable]
    ) -> "_Part":
        """For variables that stay as they are for some epochs, or -1: for all."""
        recipe = self._recipe
        assert recipe.learning_rate is not None
        # Of updates: that of several accumulated steps is one.
        epochs = max(1, recipe.epochs - max(0, frozen_epochs))
        steps = max(1, epochs * self.steps // recipe.accumulate)
        warmup = int(recipe.warmup_epochs * self.steps) // recipe.accumulate
        rate = recipe.learning_rate * (recipe.backbone_lr_multiplier if frozen_epochs else 1.0)
        return _Part(
            name, variables, frozen_epochs, Cosine(rate, steps, min(warmup, steps - 1)),
            AdamW(variables, recipe.weight_decay, recipe.accumulate, self._strategy),
        )  # fmt: skip

    def _step_of_all(self, *args: Any) -> tf.Tensor:
        return self._strategy.run(self._step_of_one, args=args)

    def _step_of_one(
        self,
        images: Any,
        targets: Any,
        weights: Any,
        seed: Any,
        rates: Any,
        size: int,
        frozen: bool,
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
        if not recipe.plain:
            other = tf.random.experimental.stateless_fold_in(seed, _FOR_DEGRADING)
            crops = degrade(crops, other, coarsen=self._teachers is not None)
        if recipe.mixup:
            other = tf.random.experimental.stateless_fold_in(seed, _FOR_MIXUP)
            crops, blended = mixup(crops, tuple(targets.values()), recipe.mixup, other)
            targets = dict(zip(targets, blended, strict=True))
        parts = [part for part in self._parts[: 1 if frozen else 2] if part.variables]
        with tf.GradientTape() as tape:
            predicted = self.networks(crops, training=True, frozen=frozen)
            losses = [TASKS[task].loss(targets[task], predicted[task], recipe) for task in targets]
            each = weights * tf.add_n(losses)
            loss = tf.reduce_sum(each) / (self._batch_size * self.workers)
            scaled = loss * self._scale.scale if self._scale else loss
        gradients = tape.gradient(scaled, [[v.value for v in part.variables] for part in parts])
        summed = [part.optimizer.summed(of) for part, of in zip(parts, gradients, strict=True)]
        usable = None
        if self._scale:
            usable = self._scale.checked([of for part in summed for of in part])
            summed = [[[g / self._scale.scale for g in of] for of in part] for part in summed]
        for number, (part, of) in enumerate(zip(parts, summed, strict=True)):
            part.optimizer.apply(of, rates[number], usable)
        if self._scale and usable is not None:
            self._scale.follow(usable)
        if self._statistics:
            means = [v / self.workers for v in sum_over_workers(self._statistics.values())]
            self._statistics.assign(means)
        self._averages.move(parts[0].optimizer.updates)
        return loss

    def _forward_of_one(self, images: Any, size: int) -> dict[str, tf.Tensor]:
        return self.networks(plain(images, size), training=False)

    def _sum_of_all(self, values: tf.Tensor) -> tf.Tensor:
        each = self._strategy.run(lambda v: tf.identity(v), args=(values,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)


_POLICY = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def face_weights(faces: Faces, recipe: Recipe) -> NDArray[np.float32]:
    """How much each face counts, float32 (n,): the product of its own weight and those of the tasks."""
    weights = np.ones(len(faces), np.float32) if faces.weights is None else faces.weights.copy()
    for name in recipe.tasks:
        weights *= TASKS[name].face_weights(faces.classes[name], recipe)
    return weights
