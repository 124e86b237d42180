"""What a step of training takes by itself, without the job around it, and where its time goes on a GPU.

    python -m benchmarks.gpu_step [--backbone vgg-face --size 224 --batch-size 384]

Prints the faces a second that are decoded by themselves, the seconds to build and to trace, those of the
first step, the faces a second of the same batch again and again, and the kernels of a GPU that take most.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_pictures import write_pictures
from benchmarks.gpu_runs import seconds_of
from lib.common import options as command_line
from lib.datasets.labelled_faces import LabelledFaces
from lib.models.backbones.registry import BACKBONES, BackboneName
from lib.models.bundle import Precision
from lib.storage.folder import folder as as_folder

BATCHES = 8
KERNELS = 12


@dataclass(frozen=True)
class Options:
    """Measure a step of training by itself.

    Attributes:
        backbone: Of the network.
        size: Side of the crops in pixels.
        batch_size: Faces of a step.
        precision: What the networks compute in.
        frozen: Only the heads are trained, and what the backbone leaves free.
        steps: How many are timed together.
    """

    backbone: BackboneName = "efficientnet-lite0"
    size: int = 96
    batch_size: int = 992
    precision: Precision = "bfloat16"
    frozen: bool = False
    steps: int = 12


def main() -> int:
    """Print a line for each thing that is measured."""
    options = command_line.parse(Options, None)
    from lib.common.tensorflow_settings import configure, first_gpu

    threads = len(os.sched_getaffinity(0))
    configure(threads)
    gpu = first_gpu()
    say(f"on {gpu.name if gpu else 'CPUs'}, {threads} cores: {options}")
    with tempfile.TemporaryDirectory(prefix="step-") as name:
        measure(options, Path(name), threads)
    return 0


def measure(options: Options, folder: Path, threads: int) -> None:
    """See the module."""
    from lib.training.checkpoint import Position
    from lib.training.decoding_pool import open_pool
    from lib.training.faces import open_faces, read_labels

    write_pictures(folder, 0, 0, options.batch_size * (BATCHES + 1), None)
    side = round(options.size * 1.2)
    with closing(open_pool(threads)) as pool:
        training, validation = (
            open_faces(faces, read_labels(faces), side, folder / "cache", pool)
            for faces in (
                LabelledFaces(as_folder(folder / "faces"), split) for split in ("train", "val")
            )
        )
        parts = np.array_split(np.random.default_rng(0).permutation(len(training)), BATCHES + 1)
        training.images(parts[0])
        seconds = seconds_of(lambda: [training.images(part) for part in parts[1:]])
        say(f"decoding alone: {sum(map(len, parts[1:])) / seconds:,.0f} faces/s")
        began = time.perf_counter()
        trainer = _trainer(options, training, validation)
        say(f"built in {time.perf_counter() - began:.1f} s")
        batch, position = trainer._batch(parts[0]), Position()
    step = (*batch, trainer._seed(position), trainer._rates(position), options.size, options.frozen)
    traced = seconds_of(lambda: trainer._step.get_concrete_function(*step))
    first = seconds_of(lambda: float(trainer._step(*step)))
    say(f"traced in {traced:.1f} s; first step {first:.1f} s")

    def run() -> None:
        losses = [trainer._step(*step) for _ in range(options.steps)]
        float(losses[-1])

    run()
    each = seconds_of(run) / options.steps
    say(f"a step: {each * 1000:.1f} ms, {options.batch_size / each:,.0f} faces/s")
    for kernel, share in shares_of_kernels(run, folder / "profile").most_common(KERNELS):
        say(f"{share:6.1%} {kernel}")


def _trainer(options: Options, training: Any, validation: Any) -> Any:
    import tensorflow as tf

    from lib.training.defaults import completed
    from lib.training.loop import Trainer
    from lib.training.networks import build_networks
    from lib.training.recipe import Recipe

    spec = BACKBONES[options.backbone]
    wanted = Recipe(batch_size=options.batch_size, precision=options.precision)
    recipe = completed(wanted, spec, False, options.batch_size, precise=False)
    size = None if spec.any_size else options.size
    return Trainer(
        tf.distribute.MultiWorkerMirroredStrategy(),
        lambda: build_networks(options.backbone, size, recipe.dropout, None, recipe.tasks),
        recipe, options.size, training, validation, 0, 1,
    )  # fmt: skip


def shares_of_kernels(run: Callable[[], None], log: Path) -> Counter[str]:
    """Names of kernels, and what share of the GPU's time each took; empty without a GPU."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tf.profiler.experimental.Profile(str(log)):
        run()
    took: Counter[str] = Counter()
    for file in log.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
        for plane in (plane for plane in space.planes if "GPU" in plane.name):
            for line in (line for line in plane.lines if "Stream" in line.name):
                for event in line.events:
                    took[plane.event_metadata[event.metadata_id].name[:90]] += event.duration_ps
    total = took.total()
    return Counter({name: of_kernel / total for name, of_kernel in took.items()})


def say(line: str) -> None:
    """Print a line now."""
    print(line, flush=True)


if __name__ == "__main__":
    command_line.run(main)
