"""AdamW over few long vectors, and the scale of the loss in half precision.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; Loshchilov and Hutter, "Decoupled
Weight Decay Regularization", ICLR 2019. The results are those of `keras.optimizers.AdamW` with `clipnorm`
on one worker; gradients are clipped after the workers' are summed, so that their number changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from lib.training.flat import FlatGroup, own, sum_over_workers

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
CLIP_NORM = 5.0
"""Of the gradient of each variable."""
NOT_DECAYED = ("bias", "gamma", "beta")
"""In the names of variables that stay as large as the loss wants them."""
FIRST_LOSS_SCALE = 2.0**15
STEPS_TO_DOUBLE = 2000
"""With finite gradients, before the loss scale is tried twice as large."""


class AdamW:
    """Updates some variables of a network by their gradients, in a step of `strategy.run`."""

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        weight_decay: float,
        accumulate: int,
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Make the moments.

        Args:
            variables: float32; at least one.
            weight_decay: share by which a weight shrinks in an update, times the learning rate.
            accumulate: steps whose gradients make one update.
            strategy: with one replica on each worker.
        """
        decayed = [_is_decayed(v) for v in variables]
        # Decayed and other variables are in different vectors.
        self._members = [[i for i, d in enumerate(decayed) if d is kind] for kind in (True, False)]
        self._groups = [
            FlatGroup([variables[i] for i in members], strategy) if members else None
            for members in self._members
        ]
        self._decays = (weight_decay, 0.0)
        self._accumulate = accumulate
        with strategy.scope():
            steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._steps = own(steps, strategy)
        self._first, self._second, self._sums = (
            [group.new() if group and kept else [] for group in self._groups]
            for kept in (True, True, accumulate > 1)
        )

    @property
    def variables(self) -> list[tf.Variable]:
        """All that the next update depends on, in a fixed order."""
        states = (*self._first, *self._second, *self._sums)
        return [self._steps, *(v for state in states for v in state)]

    @property
    def updates(self) -> tf.Tensor:
        """How many were made, int64."""
        return self._steps // self._accumulate

    def summed(self, gradients: Sequence[tf.Tensor]) -> list[list[tf.Tensor]]:
        """The gradients of all workers together, for `apply`.

        Args:
            gradients: of this worker, in the order of the variables.
        """
        flat = [
            group.flat([gradients[i] for i in members]) if group else []
            for group, members in zip(self._groups, self._members, strict=True)
        ]
        together = iter(sum_over_workers([vector for of in flat for vector in of]))
        return [[next(together) for _ in of] for of in flat]

    def apply(
        self, gradients: list[list[tf.Tensor]], rate: tf.Tensor, usable: tf.Tensor | None = None
    ) -> None:
        """Make a step.

        Args:
            gradients: of `summed`.
            rate: the learning rate, float32 ().
            usable: bool (); where it is false nothing changes. None: they are.
        """
        if usable is not None:
            gradients = [[tf.where(usable, g, tf.zeros_like(g)) for g in of] for of in gradients]
        counts = tf.constant(True) if usable is None else usable
        if self._accumulate == 1:
            self._update(gradients, rate, tf.cast(counts, tf.float32))
        else:
            self._add_up(gradients)
            due = counts & tf.equal((self._steps + 1) % self._accumulate, 0)
            tf.cond(due, lambda: self._update_by_sums(rate), lambda: tf.no_op())
        self._steps.assign_add(tf.cast(counts, tf.int64))

    def _add_up(self, gradients: list[list[tf.Tensor]]) -> None:
        for sums, of in zip(self._sums, gradients, strict=True):
            for total, gradient in zip(sums, of, strict=True):
                total.assign_add(gradient)

    def _update_by_sums(self, rate: tf.Tensor) -> Any:
        means = [[total / float(self._accumulate) for total in sums] for sums in self._sums]
        with tf.control_dependencies([mean for of in means for mean in of]):
            self._update(means, rate, tf.constant(1.0))
            for sums in self._sums:
                for total in sums:
                    total.assign(tf.zeros_like(total))
        return tf.no_op()

    def _update(self, gradients: list[list[tf.Tensor]], rate: tf.Tensor, counts: tf.Tensor) -> None:
        """Change moments and variables; `counts` is 1.0, or 0.0 for no change at all."""
        number = tf.cast(self.updates + 1, tf.float32)
        step = rate * tf.sqrt(1.0 - BETA_2**number) / (1.0 - BETA_1**number)
        for group, decay, of, first, second in zip(
            self._groups, self._decays, gradients, self._first, self._second, strict=True
        ):
            if group is None:
                continue
            changes = []
            for gradient, m, v in zip(_clipped(group, of), first, second, strict=True):
                mean = m.assign_add(counts * (1.0 - BETA_1) * (gradient - m))
                square = v.assign_add(counts * (1.0 - BETA_2) * (tf.square(gradient) - v))
                changes.append(mean * step / (tf.sqrt(square) + EPSILON))
            if decay:
                weights = group.values()
                # Keras shrinks the weights first, which is the same.
                changes = [c + w * decay * rate for c, w in zip(changes, weights, strict=True)]
            group.subtract([counts * change for change in changes])


class LossScale:
    """A factor on the loss that keeps gradients of float16 above its smallest number.

    Halved after a step whose gradients are not finite, which then changes nothing else; doubled after
    many that are (Micikevicius et al., "Mixed Precision Training", ICLR 2018).
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        """Start with a large one, which the first steps lower."""
        with strategy.scope():
            made = (
                tf.Variable(FIRST_LOSS_SCALE, trainable=False),
                tf.Variable(0, trainable=False, dtype=tf.int64),
            )
        self.scale, self._good = (own(v, strategy) for v in made)

    @property
    def variables(self) -> list[tf.Variable]:
        """All that it depends on."""
        return [self.scale, self._good]

    def checked(self, gradients: list[list[tf.Tensor]]) -> tf.Tensor:
        """Whether gradients, summed over the workers, are finite; bool (), the same on all workers."""
        finite = [tf.reduce_all(tf.math.is_finite(g)) for of in gradients for g in of]
        return tf.reduce_all(tf.stack(finite))

    def follow(self, usable: tf.Tensor) -> None:
        """Change the scale after a step."""
        good = tf.where(usable, self._good + 1, tf.zeros_like(self._good))
        double = good >= STEPS_TO_DOUBLE
        factor = tf.where(usable, tf.where(double, 2.0, 1.0), 0.5)
        self.scale.assign(self.scale * factor)
        self._good.assign(tf.where(double, tf.zeros_like(good), good))


def _clipped(group: FlatGroup, vectors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients as vectors, of which no variable's is longer than `CLIP_NORM`."""
    clipped = []
    for gradient in group.split(vectors):
        norm = tf.sqrt(2.0 * tf.nn.l2_loss(gradient))
        clipped.append(gradient * (CLIP_NORM / tf.maximum(norm, CLIP_NORM)))
    return group.flat(clipped)


def _is_decayed(variable: keras.Variable) -> bool:
    return not any(part in variable.name for part in NOT_DECAYED)
