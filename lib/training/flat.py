"""Many variables as few vectors: an operation on a vector in place of one for each variable.

A network of 160 variables has 160 operations for each step of its optimiser's arithmetic, and tracing
these takes longer than anything else before the first step. Vectors need a copy, so a large variable
stays a vector of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

LARGE = 1 << 20
"""Elements of a variable that is not copied together with others."""


class FlatGroup:
    """Variables of the same type, and the vectors that stand for all of them."""

    def __init__(self, variables: Sequence[Any], strategy: tf.distribute.Strategy) -> None:
        """Choose the vectors: one for all small variables, and one for each large one.

        Args:
            variables: float32, of Keras; at least one.
            strategy: with one replica on this worker, under which they were made.
        """
        self._strategy = strategy
        # In a replica's step only its own component can be changed without a word to all others.
        self._own = [own(v.value, strategy) for v in variables]
        self.shapes = [tuple(v.shape) for v in variables]
        small = [i for i, v in enumerate(self._own) if v.shape.num_elements() < LARGE]
        large = [[i] for i in range(len(self._own)) if i not in set(small)]
        self._vectors = [members for members in (small, *large) if members]
        self.sizes = [
            sum(self._own[i].shape.num_elements() for i in members) for members in self._vectors
        ]
        """Length of each vector."""

    def new(self, fill: Sequence[tf.Tensor] | None = None) -> list[tf.Variable]:
        """State of one number for each element, float32: zeros, or what is given, on each worker."""
        with self._strategy.scope():
            made = [
                tf.Variable(values, trainable=False)
                for values in (fill or [tf.zeros(size) for size in self.sizes])
            ]
        return [own(v, self._strategy) for v in made]

    def values(self) -> list[tf.Tensor]:
        """The variables as vectors."""
        return self.flat([v.read_value() for v in self._own])

    def flat(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Tensors of the variables' shapes → vectors."""
        return [
            tf.concat([tf.reshape(tensors[i], [-1]) for i in members], 0)
            if len(members) > 1
            else tf.reshape(tensors[members[0]], [-1])
            for members in self._vectors
        ]

    def split(self, vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Vectors → tensors of the variables' shapes."""
        tensors: list[Any] = [None] * len(self.shapes)
        for members, vector in zip(self._vectors, vectors, strict=True):
            sizes = [self._own[i].shape.num_elements() for i in members]
            parts = tf.split(vector, sizes) if len(members) > 1 else [vector]
            for i, part in zip(members, parts, strict=True):
                tensors[i] = tf.reshape(part, self.shapes[i])
        return tensors

    def assign(self, vectors: Sequence[tf.Tensor]) -> None:
        """Give the variables the values of vectors."""
        for variable, value in zip(self._own, self.split(vectors), strict=True):
            variable.assign(value)

    def subtract(self, vectors: Sequence[tf.Tensor]) -> None:
        """Subtract vectors from the variables."""
        for variable, change in zip(self._own, self.split(vectors), strict=True):
            variable.assign_sub(change)


def own(variable: Any, strategy: tf.distribute.Strategy) -> tf.Variable:
    """The component of a variable that is on this worker."""
    (component,) = strategy.experimental_local_results(variable)
    return component


def sum_over_workers(vectors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The sum of every vector over all workers, in a replica's step."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(vectors)
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(vectors)))


def assign_arrays(variables: Sequence[Any], values: Sequence[NDArray[Any]]) -> None:
    """Give variables, of Keras or TensorFlow, the values of arrays of their shapes."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.asarray(value))
