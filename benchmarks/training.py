"""How training scales, and what it costs beside a plain Keras `fit`.

    python -m benchmarks.training --data FACES

In one run, on the same faces without augmentation: the job with one worker on one core, with two
workers on one core each (the same batch on each worker), and with one worker on all cores; and `fit` of
the same networks with the same losses and optimiser on the same faces in memory, on all cores, on one
core, and twice side by side on one core each, which know nothing of each other: the most that two
workers could do there. All of them count with the faces a second of their fastest epoch after the first
one, which also builds the graphs.

Then the losses of 50 steps of one worker and of two that share the same batches of 64, in one epoch: the
split train must have at least 3,264 faces, two of the tars of UTKFace.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from lib.datasets.labelled_faces import LabelledFaces
from lib.models.backbones.registry import BACKBONES, BackboneName
from lib.storage.folder import folder as as_folder
from lib.tasks import TASKS
from lib.training.checkpoint import FACTS, read_checkpoint
from lib.training.faces import read_labels

CORES = len(os.sched_getaffinity(0))
EPOCHS = 4
STEPS, SHARED_BATCH = 50, 64


@dataclass(frozen=True)
class Options:
    """Compare ways to train.

    Attributes:
        data: Folder faces/ of jobs.prepare.
        backbone: Which one.
        size: Side of the crops in pixels; default: of the backbone.
        batch_size: Faces of a step on each worker.
        use_gpu: One worker on a GPU against `fit` on it, instead.
    """

    data: Path
    backbone: BackboneName = "compact"
    size: int | None = None
    batch_size: int = 96
    use_gpu: bool = False


def main() -> None:
    """Run all and print a table."""
    options = tyro.cli(Options)
    options = replace(options, size=options.size or BACKBONES[options.backbone].size)
    faces = len(read_labels(LabelledFaces(as_folder(options.data), "train")))
    # After the last step of an epoch there is no checkpoint of its losses.
    least = (STEPS + 1) * SHARED_BATCH
    if not options.use_gpu and faces < least:
        sys.exit(
            f"error: --data {options.data} has {faces:,} faces to train on; it takes {least:,}"
        )
    rates = {}
    if not options.use_gpu:
        rates["1 worker, 1 core"] = run_job(options, workers=1, cpus=0.9)
        rates["2 workers, 1 core each"] = run_job(options, workers=2, cpus=0.9)
        rates["fit, 1 core"] = run_fits(options, 1, threads=1)
        rates["2 fits, 1 core each"] = run_fits(options, 2, threads=1)
    rates["1 worker, all cores"] = run_job(options, workers=1, cpus=CORES - 0.1)
    rates["fit, all cores"] = run_fits(options, 1, threads=CORES)
    for name, (faces, rate) in rates.items():
        print(f"{name:24}  {faces:7,} faces an epoch  {rate:8.1f} images/s")
    of = {name: rate for name, (_, rate) in rates.items()}
    if not options.use_gpu:
        print(f"two workers to one: {of['2 workers, 1 core each'] / of['1 worker, 1 core']:.2f}")
        print(f"two fits to one: {of['2 fits, 1 core each'] / of['fit, 1 core']:.2f}")
    print(f"job to fit: {of['1 worker, all cores'] / of['fit, all cores']:.2f}")
    if not options.use_gpu:
        compare_losses(options)


def run_job(options: Options, workers: int, cpus: float) -> tuple[int, float]:
    """Faces of an epoch, and faces a second, of the job as a user runs it."""
    with tempfile.TemporaryDirectory() as folder:
        epochs = train(
            options, Path(folder),
            *("--batch-size", str(options.batch_size), "--epochs", str(EPOCHS)),
            *("--workers", str(workers), "--cpus", str(cpus)),
            *("--use-gpu", "yes" if options.use_gpu else "no"),
        )  # fmt: skip
    steps = epochs[-1]["step"] // EPOCHS
    rate = max(epoch["images_per_second"] for epoch in epochs[1:])
    return steps * options.batch_size * workers, rate


def compare_losses(options: Options) -> None:
    """Print how far the losses of two workers are from those of one on the same batches."""
    curves, apart = [], 0.0
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            epochs = train(
                options, Path(folder),
                *("--batch-size", str(SHARED_BATCH // workers), "--epochs", "1", "--dropout", "0"),
                *("--workers", str(workers), "--cpus", "0.9", "--checkpoint-steps", str(STEPS)),
            )  # fmt: skip
            states = [read_checkpoint(file.parent)[1] for file in Path(folder).rglob(FACTS)]
        curves += [state.losses for state in states if state.step == STEPS]
        apart = max(apart, epochs[-1]["workers_apart"])
    one, two = np.array(curves)
    difference = np.abs(two / one - 1)
    print(
        f"loss over {STEPS} steps of {SHARED_BATCH} faces: {one[0]:.4f} to {one[-1]:.4f} with one "
        f"worker, {two[0]:.4f} to {two[-1]:.4f} with two; difference at most {difference.max():.3%}, "
        f"{difference.mean():.3%} on average; the two workers' weights differ by {apart:.1e}"
    )


def train(options: Options, folder: Path, *others: str) -> list[dict[str, Any]]:
    """Run the job without augmentation; gives the metrics of its epochs."""
    command = [
        *(sys.executable, "-m", "jobs.train", "--data", str(options.data), "--output", str(folder)),
        *("--backbone", options.backbone, "--size", str(options.size), "--plain", *others),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run_fits(options: Options, processes: int, threads: int) -> tuple[int, float]:
    """The same of `fit`, in processes of their own that start together: the sum of all."""
    context = get_context("spawn")
    answers: Queue[tuple[int, float]] = context.Queue()
    together = context.Barrier(processes)
    running = [
        context.Process(target=fit, args=(options, threads, together, answers))
        for _ in range(processes)
    ]
    for process in running:
        process.start()
    results = [answers.get() for _ in running]
    for process in running:
        process.join()
    return sum(faces for faces, _ in results), sum(rate for _, rate in results)


def fit(
    options: Options, threads: int, together: Barrier, answers: "Queue[tuple[int, float]]"
) -> None:
    """Train as a Keras tutorial does."""
    from lib.common import tensorflow_settings as runtime  # it quiets TensorFlow; isort: skip
    import time

    import keras

    from lib.training.faces import load_faces
    from lib.training.networks import build_networks
    from lib.training.recipe import Recipe

    runtime.configure(threads)
    assert options.size is not None
    networks = build_networks(options.backbone, options.size)
    inputs = keras.Input((options.size, options.size, 3), dtype="uint8")
    pixels = networks.pixels
    offset = (-np.asarray(pixels.mean) / pixels.std).tolist()
    x = keras.layers.Rescaling(pixels.scale / pixels.std, offset)(inputs)
    features = networks.backbone(x)
    model = keras.Model(inputs, [head(features) for head in networks.heads.values()])
    recipe = Recipe(gender_weight=1.0)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.05, clipnorm=5.0, use_ema=True),
        [lambda y, p, task=task: TASKS[task].loss(y, p, recipe) for task in networks.heads],
    )

    class Clock(keras.callbacks.Callback):
        """How long each epoch takes."""

        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            together.wait()
            self.started = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            self.seconds.append(time.monotonic() - self.started)

    with tempfile.TemporaryDirectory() as folder:
        faces = load_faces(options.data, "train", options.size, Path(folder))
        count = len(faces) // options.batch_size * options.batch_size
        images = faces.images(slice(count))
    targets = [TASKS[task].targets(faces.classes[task][:count], recipe) for task in networks.heads]
    clock = Clock()
    model.fit(
        images, targets, options.batch_size, EPOCHS, verbose=0, callbacks=[clock]
    )  # fmt: skip
    answers.put((count, count / min(clock.seconds[1:])))


if __name__ == "__main__":
    main()
