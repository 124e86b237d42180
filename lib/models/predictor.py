"""Crops → probabilities: what computes them, and which engine does.

ONNX Runtime computes the inference graph of a bundle on CPUs; it loads in a twentieth of the time that
TensorFlow takes, and is faster for small networks. TensorFlow computes the rest: on GPUs, in other
precisions, and networks without such a graph.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lib.common.gpus import usable_gpus
from lib.models.bundle import Bundle, PrecisionChoice


class Predictor(Protocol):
    """The networks of some tasks of a bundle, loaded."""

    def __call__(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Compute the probabilities of a batch of crops.

        Args:
            crops: uint8 (n, size, size, 3), RGB; any n, also 0.

        Returns:
            By task, float32 (n, classes).
        """


class Mirrored:
    """A predictor that also looks at the mirror image of each crop, and gives the mean of both.

    Args:
        predictor: of the crops.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def __call__(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """See `Predictor`."""
        both = self._predictor(np.concatenate([crops, crops[:, :, ::-1]]))
        count = len(crops)
        return {task: np.float32(0.5) * (of[:count] + of[count:]) for task, of in both.items()}


def load_predictor(
    bundle: Bundle,
    tasks: Sequence[str],
    threads: int,
    precision: PrecisionChoice = "float32",
    on_gpu: bool = False,
    share: float = 1.0,
    say: Callable[[str], None] = lambda line: None,
) -> Predictor:
    """Load the networks of some tasks, for the engine that is best for them.

    Args:
        bundle: the model, on this machine.
        tasks: of it.
        threads: for the computations.
        precision: what the networks compute in.
        on_gpu: whether this process has a GPU, or a share of one.
        share: of the GPU.
        say: takes a line about the device and the precision, if there was a choice.

    Raises:
        UserError: a file of the bundle cannot be used.
    """
    here = precision in ("auto", "float32") and not on_gpu
    if bundle.inference is not None and (here or not bundle.networks):
        from lib.models.onnx_predictor import OnnxPredictor

        return OnnxPredictor(bundle, tasks, threads)
    from lib.common.tensorflow_settings import compute_float32_in_full, configure, first_gpu
    from lib.models.tensorflow_predictor import TensorflowPredictor

    configure(threads)
    if on_gpu:
        from lib.models.gpu_predictor import GpuPredictor

        compute_float32_in_full()
        gpu = first_gpu()
        if gpu is not None:
            return GpuPredictor(bundle, tasks, precision, gpu, share, say)
        _, problem = usable_gpus()
        say(
            f"no GPU in a worker on one ({problem or 'none is there'}): the models compute on its CPUs"
        )
    return TensorflowPredictor(bundle, tasks, "float32" if precision == "auto" else precision)
