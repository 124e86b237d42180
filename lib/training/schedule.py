"""The learning rate and the order of the faces over time."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cosine:
    """A learning rate that rises in a line from zero, then falls to zero as a cosine.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Attributes:
        highest: rate after the warm-up.
        updates: after which it is zero.
        warmup: updates over which it rises; less than `updates`.
    """

    highest: float
    updates: int
    warmup: int

    def __call__(self, update: int) -> float:
        """The rate of an update, from 0."""
        if update < self.warmup:
            return self.highest * update / self.warmup
        share = min(1.0, (update - self.warmup) / max(1, self.updates - self.warmup))
        return self.highest * 0.5 * (1.0 + math.cos(math.pi * share))


def epoch_order(faces: int, epoch: int, seed: int) -> np.ndarray:
    """The order of all faces in an epoch, int64 (faces,): the same on every worker."""
    return np.random.default_rng((seed, epoch)).permutation(faces)
