"""Crops → probabilities by ONNX Runtime, on CPUs."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.common.onnx import session
from lib.models.bundle import Bundle
from lib.models.check_crops import answers_of, check_crops, difference

FILE, OPSET = "inference.onnx", 18
COMPRESSED_FILE = f"{FILE}.gz"
MOST_BYTES = 1 << 30
"""Of a graph, decompressed: those of this project have a hundredth."""
INPUT = "crops"
"""Name of the graph's input; its outputs have the names of the tasks."""
BATCH_PIXELS = 16 * 96 * 96
"""Pixels of the faces in one call: their activations stay in the cache of a core."""


class GraphNetwork:
    """An inference graph, loaded.

    Args:
        graph: ONNX, from crops to the classes of tasks.
        tasks: whose probabilities are wanted.
        threads: for the computations.
        batch: faces in one call.

    Raises:
        Exception: ONNX Runtime's own, of many kinds: it is no graph, or not one for this version.
    """

    def __init__(self, graph: bytes, tasks: Sequence[str], threads: int, batch: int) -> None:
        self._session = session(graph, threads)
        self._tasks = list(tasks)
        self._batch = batch

    def __call__(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """See `lib.models.predictor.Predictor`."""
        # Without faces one call gives arrays of the right shape.
        starts = range(0, max(len(crops), 1), self._batch)
        chunks = [
            self._session.run(self._tasks, {INPUT: crops[start : start + self._batch]})
            for start in starts
        ]
        return dict(zip(self._tasks, map(np.concatenate, zip(*chunks, strict=True)), strict=True))


class OnnxPredictor:
    """The inference graph of a bundle; see `lib.models.predictor.Predictor`.

    Args:
        bundle: with an inference graph, on this machine.
        tasks: whose probabilities are wanted.
        threads: for the computations.

    Raises:
        UserError: the graph cannot be read, or it answers otherwise than the card says.
    """

    def __init__(self, bundle: Bundle, tasks: Sequence[str], threads: int) -> None:
        graph, file = bundle.card.inference, bundle.inference
        assert graph is not None
        assert file is not None
        batch = max(1, BATCH_PIXELS // bundle.crop.size**2)
        remedy = (
            f"python -m lib.models.inference_graph {bundle.folder} writes it anew"
            if bundle.networks
            else "import the model again"
        )
        try:
            self._network = GraphNetwork(_read(file), tasks, threads, batch)
            found = answers_of(self(check_crops(bundle.crop.size)))
        # ONNX Runtime has errors of many kinds for graphs, and exports none of them.
        except Exception as error:
            raise UserError(
                f"cannot use the inference graph {str(file)!r}: {str(error).splitlines()[0]}; {remedy}"
            ) from None
        if gap := difference(found, {task: graph.answers[task] for task in tasks}):
            raise UserError(
                f"the inference graph {str(file)!r} answers otherwise than the card says: {gap}; {remedy}"
            )

    def __call__(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Compute the probabilities of a batch of crops."""
        return self._network(crops)


def _read(file: Path) -> bytes:
    """The graph of a bundle, decompressed.

    Raises:
        OSError: it is no gzip file.
        EOFError: it is cut.
        ValueError: it has more than `MOST_BYTES`.
    """
    if file.suffix != ".gz":
        return file.read_bytes()
    with gzip.open(file) as compressed:
        graph = compressed.read(MOST_BYTES + 1)
    if len(graph) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20:,} MB")
    return graph
