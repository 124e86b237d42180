"""What a face costs in each backbone and engine.

    python -m benchmarks.engines --backbones efficientnet-lite0 mobilenet

Backbones with random weights, at their own size, on one thread; in turns, so that all meet the same
noise.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tyro
from numpy.typing import NDArray

from lib.common.tensorflow_settings import configure, tf
from lib.models.backbones.registry import BACKBONES, BackboneName
from lib.models.onnx_predictor import BATCH_PIXELS, OPSET

ROUNDS = 15

Compute = Callable[[NDArray[np.float32]], object]


@dataclass(frozen=True)
class Options:
    """Measure backbones.

    Attributes:
        backbones: Which ones.
    """

    backbones: tuple[BackboneName, ...] = ("efficientnet-lite0", "mobilenet")


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    configure(1)
    measured = {(name, engine): run for name in options.backbones for engine, run in engines(name)}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in measured}
    for _ in range(ROUNDS):
        for (name, engine), run in measured.items():
            crops = random_crops(name)
            started = time.process_time()
            run(crops)
            seconds[name, engine].append((time.process_time() - started) / len(crops))
    for (name, engine), each in seconds.items():
        side = BACKBONES[name].size
        print(f"{name} at {side} pixels, {engine}: {1e3 * np.median(each):.2f} ms of a core a face")


def engines(name: str) -> list[tuple[str, Compute]]:
    """The backbone in ONNX Runtime and in TensorFlow."""
    import tf2onnx

    from lib.common.onnx import session

    spec = BACKBONES[name]
    network = spec.build(spec.size)
    crops = tf.TensorSpec((None, spec.size, spec.size, 3), tf.float32, name="crops")
    forward = tf.function(lambda x: network(x, training=False), input_signature=[crops])
    model, _ = tf2onnx.convert.from_function(forward, input_signature=[crops], opset=OPSET)
    graph = session(model.SerializeToString(), threads=1)
    return [
        ("ONNX Runtime", lambda x: graph.run(None, {"crops": x})),
        ("TensorFlow", lambda x: forward(x)),
    ]


def random_crops(name: str) -> NDArray[np.float32]:
    """As many as labelling computes at once."""
    side = BACKBONES[name].size
    count = max(1, BATCH_PIXELS // side**2)
    return np.random.default_rng(0).random((count, side, side, 3), np.float32)


if __name__ == "__main__":
    main()
