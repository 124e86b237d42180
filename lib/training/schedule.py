"""The learning rate over time."""

import keras
import numpy as np


def cosine(highest: float, steps: int, warmup: int) -> keras.optimizers.schedules.CosineDecay:
    """Rise from zero to `highest` over `warmup` steps, and fall to zero at the last of `steps`."""
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else highest,
        decay_steps=max(1, steps - warmup),
        warmup_target=highest if warmup else None,
        warmup_steps=warmup,
    )


def epoch_order(faces: int, epoch: int, seed: int) -> np.ndarray:
    """The order of all faces in an epoch, int64 (faces,): the same on every worker."""
    return np.random.default_rng((seed, epoch)).permutation(faces)
