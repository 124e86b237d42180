"""Moving averages of a network's weights, which validate better than the weights of any step.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 1992.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from lib.training.flat import FlatGroup


class WeightAverages:
    """Follows variables, and the statistics of normalisation: those of other weights would not fit."""

    def __init__(
        self, variables: Sequence[keras.Variable], momentum: float, strategy: tf.distribute.Strategy
    ) -> None:
        """Start at the variables as they are.

        Args:
            variables: of any type; those that are not floating numbers are not averaged.
            momentum: share of the old average in a new one; 0: no averages are kept.
            strategy: with one replica on each worker.
        """
        self._variables = list(variables)
        self._momentum = momentum
        floats = [v for v in variables if momentum and keras.backend.is_float_dtype(v.dtype)]
        self._averaged = {id(v): number for number, v in enumerate(floats)}
        self._group = FlatGroup(floats, strategy) if floats else None
        self._averages = self._group.new(self._group.values()) if self._group else []

    def move(self, updates: tf.Tensor) -> None:
        """Move the averages towards the variables, in a replica's step.

        Args:
            updates: of the weights that were made so far, ().
        """
        if not self._group:
            return
        count = tf.cast(updates, tf.float32)
        # Faster at first, so that the random weights of the start are soon forgotten.
        share = 1.0 - tf.minimum(self._momentum, (1.0 + count) / (10.0 + count))
        for average, now in zip(self._averages, self._group.values(), strict=True):
            average.assign_add(share * (now - average))

    def arrays(self) -> list[NDArray[Any]]:
        """All variables, averaged where they are."""
        averages = self._group.split(self._averages) if self._group else []
        return [
            averages[self._averaged[id(v)]].numpy() if id(v) in self._averaged else v.numpy()
            for v in self._variables
        ]

    def restore(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Take up the averages of `arrays`."""
        if not self._group:
            return
        values = [
            a for v, a in zip(self._variables, arrays, strict=True) if id(v) in self._averaged
        ]
        for average, value in zip(self._averages, self._group.flat(values), strict=True):
            average.assign(value)
