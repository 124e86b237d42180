"""Crops → probabilities by TensorFlow: a bundle's Keras networks, on a GPU where there is one."""

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lib.models.bundle import Bundle, Precision
from lib.models.network_file import load_network
from lib.network_input import network_input

Predictions = dict[str, NDArray[np.float32]]
"""Probabilities by task, float32 (n, classes)."""
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
        self,
        bundle: Bundle,
        tasks: Sequence[str],
        precision: Precision = "float32",
        sizes: Sequence[int] = (),
    ) -> None:
        """Load the networks of `tasks`, to compute in `precision`.

        Args:
            bundle: the model, on this machine.
            tasks: of it.
            precision: what the networks compute in.
            sizes: numbers of faces in one call, ascending, to which batches are filled up: for devices
                that prepare for each shape. Empty: as many as suit CPUs, and the rest as it is.

        Raises:
            UserError: a file holds no network that Keras can load without running code from it.
        """
        self._backbone = load_network(bundle.backbone, precision) if bundle.backbone else None
        self._heads = {task: load_network(bundle.networks[task], precision) for task in tasks}
        self._pixels = bundle.pixels
        crop = tf.TensorSpec((None, bundle.crop.size, bundle.crop.size, 3), tf.uint8)

        @tf.function(input_signature=[crop], autograph=False)
        def forward(crops: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.probabilities(tf.cast(crops, tf.float32))

        self._forward = forward
        self._compiled: dict[int, Any] = {}  # by number of faces
        self._sizes = tuple(sizes)
        self._largest = sizes[-1] if sizes else max(1, BATCH_PIXELS // bundle.crop.size**2)
        self._side = bundle.crop.size
        self._lock = Lock()
        # Keras rejects empty batches; batches without faces are common.
        self._empty = {
            task: np.zeros((0, head.output_shape[-1]), np.float32)
            for task, head in self._heads.items()
        }

    @property
    def weights(self) -> list[NDArray[np.generic]]:
        """Of all networks, in the layout of Keras."""
        networks = [*self._heads.values(), *([self._backbone] if self._backbone else [])]
        return [weight.numpy() for network in networks for weight in network.weights]

    def probabilities(self, crops: tf.Tensor) -> dict[str, tf.Tensor]:
        """The networks in a graph: RGB float32 (n, size, size, 3) in 0..255 → by task (n, classes)."""
        x = network_input(crops, self._pixels)
        x = x if self._backbone is None else self._backbone(x, training=False)
        return {task: head(x, training=False) for task, head in self._heads.items()}

    def __call__(self, crops: NDArray[np.uint8]) -> Predictions:
        """Compute the probabilities of a batch of crops; threads may do so side by side."""
        # All batches go to the GPU before the first result is fetched: it copies one while it computes
        # another. The lock is free again then: the next thread's are copied meanwhile.
        with self._lock:
            chunks = [
                (self._begin(crops[start:end], size), end - start)
                for start, end, size in parts(len(crops), self._sizes or (self._largest,))
            ]
        return {
            task: np.concatenate([empty, *(chunk[task][:count] for chunk, count in chunks)])
            for task, empty in self._empty.items()
        }

    def compile(self) -> None:
        """Let XLA compile the calls of more than the fewest faces; they take effect one by one."""
        for size in self._sizes[:0:-1]:
            crops = tf.TensorSpec((size, self._side, self._side, 3), tf.uint8)
            compiled = tf.function(
                lambda crops: self.probabilities(tf.cast(crops, tf.float32)),
                input_signature=[crops],
                autograph=False,
                jit_compile=True,
            )
            compiled(np.zeros(crops.shape, np.uint8))
            self._compiled[size] = compiled

    def _begin(self, crops: NDArray[np.uint8], size: int) -> dict[str, Any]:
        """Send crops to the device, filled up to `size` where that is wanted."""
        if self._sizes and len(crops) < size:
            crops = np.concatenate(
                [crops, np.zeros((size - len(crops), *crops.shape[1:]), np.uint8)]
            )
        return self._compiled.get(len(crops), self._forward)(crops)


def parts(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cut a batch into calls: each full, or filled up where that wastes less than a quarter of it.

    Args:
        count: of faces.
        sizes: numbers of faces in one call, ascending.

    Yields:
        The first face, the one behind the last, and the size of the call.
    """
    start = 0
    while start < count:
        left = count - start
        above = next((size for size in sizes if size >= left), sizes[-1])
        below = max((size for size in sizes if size <= left), default=above)
        size = above if 4 * left > 3 * above else below
        yield start, min(start + size, count), size
        start += size
