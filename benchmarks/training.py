"""How training scales, and what it costs beside a plain Keras `fit`.

    python -m benchmarks.training --data FACES

In one run, on the same faces without augmentation: the job with one worker on one core, with two
workers on one core each (the same batch on each worker), and with one worker on all cores; and `fit` of
the same networks with the same losses and optimiser on the same faces in memory, on all cores. All of
them count with the faces a second of their last epoch; the first one also builds the graphs.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import tyro

from lib.models.backbones import BACKBONES
from lib.training.recipe import Backbone

CORES = len(os.sched_getaffinity(0))
EPOCHS = 3


@dataclass(frozen=True)
class Options:
    """Compare ways to train.

    Attributes:
        data: Folder faces/ of jobs.prepare.
        backbone: The trunk.
        size: Side of the crops in pixels; default: of the backbone.
        batch_size: Faces of a step on each worker.
        use_gpu: One worker on a GPU against `fit` on it, instead.
    """

    data: Path
    backbone: Backbone = "compact"
    size: int | None = None
    batch_size: int = 96
    use_gpu: bool = False


def main() -> None:
    """Run all and print a table."""
    options = tyro.cli(Options)
    options = replace(options, size=options.size or BACKBONES[options.backbone].size)
    rates = {}
    if not options.use_gpu:
        rates["1 worker, 1 core"] = run_job(options, workers=1, cpus=0.9)
        rates["2 workers, 1 core each"] = run_job(options, workers=2, cpus=0.9)
    rates["1 worker, all cores"] = run_job(options, workers=1, cpus=CORES - 0.1)
    rates["plain fit, all cores"] = run_fit(options)
    for name, (faces, rate) in rates.items():
        print(f"{name:24}  {faces:7,} faces an epoch  {rate:8.1f} images/s")
    of = {name: rate for name, (_, rate) in rates.items()}
    if not options.use_gpu:
        print(f"two to one: {of['2 workers, 1 core each'] / of['1 worker, 1 core']:.2f}")
    print(f"job to fit: {of['1 worker, all cores'] / of['plain fit, all cores']:.2f}")


def run_job(options: Options, workers: int, cpus: float) -> tuple[int, float]:
    """Faces of an epoch, and faces a second, of the job as a user runs it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "jobs.train", "--data", str(options.data), "--output", folder),
            *("--backbone", options.backbone, "--size", str(options.size), "--plain"),
            *("--batch-size", str(options.batch_size), "--epochs", str(EPOCHS)),
            *("--workers", str(workers), "--cpus", str(cpus)),
            *(("--use-gpu",) if options.use_gpu else ()),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        epochs = [
            json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()
        ]
    steps = epochs[-1]["step"] // EPOCHS
    return steps * options.batch_size * workers, epochs[-1]["images_per_second"]


def run_fit(options: Options) -> tuple[int, float]:
    """The same of `fit`, in a process of its own."""
    context = get_context("spawn")
    answer: Queue = context.Queue()
    process = context.Process(target=fit, args=(options, answer))
    process.start()
    result = answer.get()
    process.join()
    return result


def fit(options: Options, answer: "Queue[tuple[int, float]]") -> None:
    """Train as a Keras tutorial does."""
    from lib.models import runtime  # it quiets TensorFlow; isort: skip
    import time

    import keras
    import numpy as np

    from lib.training.faces import load_faces
    from lib.training.losses import age_loss, gender_loss, smoothed_ages
    from lib.training.networks import build_networks

    runtime.configure(CORES)
    assert options.size is not None
    networks = build_networks(options.backbone, options.size)
    inputs = keras.Input((options.size, options.size, 3), dtype="uint8")
    pixels = networks.pixels
    offset = (-np.asarray(pixels.mean) / pixels.std).tolist()
    x = keras.layers.Rescaling(pixels.scale / pixels.std, offset)(inputs)
    features = networks.trunk(x)
    model = keras.Model(inputs, [networks.age(features), networks.gender(features)])
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.05, clipnorm=5.0, use_ema=True),
        [lambda y, p: age_loss(y, p, 0.1), gender_loss],
    )

    class Clock(keras.callbacks.Callback):
        """When each epoch began and ended."""

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            self.started = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            self.seconds = time.monotonic() - self.started

    with tempfile.TemporaryDirectory() as folder:
        faces = load_faces(options.data, "train", options.size, Path(folder))
        count = len(faces) // options.batch_size * options.batch_size
        images = np.array(faces.images[:count])
    ages = smoothed_ages(faces.ages[:count], 2.0)
    genders = np.eye(2, dtype=np.float32)[faces.genders[:count]]
    clock = Clock()
    model.fit(
        images, [ages, genders], options.batch_size, EPOCHS, verbose=0, callbacks=[clock]
    )  # fmt: skip
    answer.put((count, count / clock.seconds))


if __name__ == "__main__":
    main()
