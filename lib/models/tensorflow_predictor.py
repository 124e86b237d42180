"""Crops → probabilities by TensorFlow: a bundle's Keras networks, on a GPU where there is one."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.bundle import Bundle, Precision
from lib.models.network_file import load_network
from lib.network_input import network_input

BATCH_PIXELS = 64 * 80 * 80
"""Pixels of the faces in one call of the networks: 64 faces at 80 pixels, 8 at 224.

Of VGG-Face on two threads, the convolutions of a face take 298 ms of CPU alone and 275 in a batch of 8,
where the weights of both tops are read once for all of them; each face of a batch takes 50 MB.

The networks run as TensorFlow graphs, not compiled by XLA, which made 2.9 faces a second of the same
convolutions where the graph made 3.3, and would compile again for every size of the last batch.
`benchmarks/vgg_face.py` measures both, and what computing in bfloat16 is worth where the CPU has
instructions for it: 1.8 times the speed.
"""


class TensorflowPredictor:
    """The networks of some tasks; a backbone that they share is computed once.

    See `lib.models.predictor.Predictor`.
    """

    def __init__(
        self, bundle: Bundle, tasks: Sequence[str], precision: Precision = "float32"
    ) -> None:
        """Load the networks of `tasks`, to compute in `precision`.

        Raises:
            UserError: a file holds no network that Keras can load without running code from it.
        """
        self._backbone = load_network(bundle.backbone, precision) if bundle.backbone else None
        self._heads = {task: load_network(bundle.networks[task], precision) for task in tasks}
        self._pixels = bundle.pixels
        crop = tf.TensorSpec((None, bundle.crop.size, bundle.crop.size, 3), tf.uint8)

        @tf.function(input_signature=[crop])
        def forward(crops: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.probabilities(tf.cast(crops, tf.float32))

        self._forward = forward
        self._batch = max(1, BATCH_PIXELS // bundle.crop.size**2)
        # Keras rejects empty batches; batches without faces are common.
        self._empty = {
            task: np.zeros((0, head.output_shape[-1]), np.float32)
            for task, head in self._heads.items()
        }

    def probabilities(self, crops: tf.Tensor) -> dict[str, tf.Tensor]:
        """The networks in a graph: RGB float32 (n, size, size, 3) in 0..255 → by task (n, classes)."""
        x = network_input(crops, self._pixels)
        x = x if self._backbone is None else self._backbone(x, training=False)
        return {task: head(x, training=False) for task, head in self._heads.items()}

    def __call__(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Compute the probabilities of a batch of crops."""
        starts = range(0, len(crops), self._batch)
        # All batches go to the GPU before the first result is fetched: it
        # copies one while it computes another.
        chunks = [self._forward(crops[start : start + self._batch]) for start in starts]
        return {
            task: np.concatenate([empty, *(chunk[task] for chunk in chunks)])
            for task, empty in self._empty.items()
        }
