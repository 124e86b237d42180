"""Crops → probabilities: a bundle's networks, loaded and compiled."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.errors import UserError
from lib.models.bundle import Bundle

MAX_BATCH = 64
"""Faces in one call of the networks. On CPUs nothing is gained above 32, and memory grows."""


class Predictor:
    """The networks of one or both tasks; where both stand on one trunk, that is computed once."""

    def __init__(self, bundle: Bundle, tasks: tuple[str, ...]) -> None:
        """Load the networks of `tasks`.

        Raises:
            UserError: a file holds no network that Keras can load without running code from it.
        """
        trunk = _load(bundle.trunk) if bundle.trunk else None
        heads = {task: _load(bundle.networks[task]) for task in tasks}
        self._size = bundle.crop.size
        pixels = bundle.pixels

        @tf.function(reduce_retracing=False)
        def forward(crops: tf.Tensor) -> dict[str, tf.Tensor]:
            x = tf.cast(crops if pixels.channels == "rgb" else crops[..., ::-1], tf.float32)
            x = (x * pixels.scale - pixels.mean) / pixels.std
            x = x if trunk is None else trunk(x, training=False)
            return {task: head(x, training=False) for task, head in heads.items()}

        self._forward = forward

    def __call__(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Compute the probabilities of a batch of crops.

        Args:
            crops: uint8 (n, size, size, 3), RGB; any n, also 0.

        Returns:
            By task, float32 (n, classes).
        """
        chunks = [
            self._padded(crops[i : i + MAX_BATCH]) for i in range(0, max(len(crops), 1), MAX_BATCH)
        ]
        return {task: np.concatenate([c[task] for c in chunks]) for task in chunks[0]}

    def _padded(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Pad to a power of two, so that a handful of shapes is traced and no more."""
        n = len(crops)
        size = 1 << max(n - 1, 0).bit_length()
        padded = np.zeros((size, self._size, self._size, 3), np.uint8)
        padded[:n] = crops
        return {task: p.numpy()[:n] for task, p in self._forward(padded).items()}


def _load(file: Path) -> keras.Model:
    try:
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot load the network {str(file)!r}: {reason}") from None
