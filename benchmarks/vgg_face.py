"""The VGG-Face models: both on one backbone against two of them, and what the settings are worth.

    python -m benchmarks.vgg_face

With files of the published layout and random weights, in one run on the same cores: first each setting
of the networks in a process of its own (batch size, threads, compiled by XLA or not), then age and
gender on a shared backbone against one after the other, and in bfloat16, taking turns: machines drift.
Seconds on the CPUs stand beside those by the clock; they tell more where a machine has other work, too.
"""

import contextlib
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import tyro
from numpy.typing import NDArray

CORES = len(os.sched_getaffinity(0))
Result = TypeVar("Result")
BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Options:
    """Measure the VGG-Face models.

    Attributes:
        faces: How many, for the comparison.
        rounds: Repetitions, of which the median counts.
        settings: Measure batch sizes, threads and XLA, too.
    """

    faces: int = 32
    rounds: int = 3
    settings: bool = True


@dataclass(frozen=True)
class Setting:
    """How the networks are run."""

    batch: int
    threads: int
    xla: bool


@dataclass(frozen=True)
class Cost:
    """What a face takes: seconds by the clock and on the CPUs; and bytes of the process at most."""

    clock: float
    cpu: float
    memory: int = 0

    def __str__(self) -> str:
        memory = f"{self.memory / 2**30:8.2f} GiB" if self.memory else ""
        return f"{1 / self.clock:8.2f} faces/s  {1e3 * self.cpu:8.0f} ms of CPU a face{memory}"


def main() -> None:
    """Print the tables."""
    options = tyro.cli(Options)
    print(f"{CORES} cores, load before {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="vgg-face-") as folder:
        bundle = make_bundle(Path(folder))
        if options.settings:
            settings = [Setting(batch, CORES, False) for batch in BATCHES]
            settings += [Setting(8, CORES, True), Setting(8, 1, False), Setting(8, 1, True)]
            for setting in settings:
                cost = apart(cost_of, bundle, setting, options.rounds)
                print(
                    f"batch {setting.batch:2}, {setting.threads} threads, "
                    f"{'XLA  ' if setting.xla else 'graph'}  {cost}",
                    flush=True,
                )
        together, separate, halves = apart(compare, bundle, options)
    print(f"both on one backbone   {together}\ntwo separate models {separate}")
    print(f"the first, bfloat16 {halves}")
    print(
        f"one backbone against two: {separate.clock / together.clock:.2f} by the clock, "
        f"{separate.cpu / together.cpu:.2f} on the CPUs\n"
        f"bfloat16 against float32: {together.clock / halves.clock:.2f} by the clock, "
        f"{together.cpu / halves.cpu:.2f} on the CPUs"
    )


def make_bundle(folder: Path) -> Path:
    """Import files with random weights."""
    # They load TensorFlow, whose settings the processes that are measured make for themselves.
    from jobs import import_weights
    from tests.vgg_face_files import write_random

    inputs = (faces(4)[..., ::-1] / np.float32(255)).astype(np.float32)
    files = write_random(folder, inputs, [("age", 101), ("gender", 2)])
    options = [text for task, file in files.items() for text in (f"--{task}", str(file))]
    with contextlib.redirect_stdout(io.StringIO()):
        import_weights.main([*options, "--output", str(folder / "bundle")])
    for file in files.values():
        file.unlink()
    return folder / "bundle"


def faces(count: int) -> NDArray[np.uint8]:
    """Noise of the right shape: the time does not depend on what is seen."""
    return np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)


def apart(function: Callable[..., Result], *args: object) -> Result:
    """Call a function in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def cost_of(folder: Path, setting: Setting, rounds: int) -> Cost:
    """Of a face, with both models on one backbone."""
    from lib.common import tensorflow_settings as runtime

    runtime.configure(setting.threads)
    import tensorflow as tf

    from lib.models.bundle import read_bundle
    from lib.models.network_file import load_network

    bundle = read_bundle(folder)
    assert bundle.backbone is not None
    backbone = load_network(bundle.backbone)
    heads = [load_network(file) for file in bundle.networks.values()]

    @tf.function(jit_compile=setting.xla)
    def forward(crops: tf.Tensor) -> list[tf.Tensor]:
        features = backbone(tf.cast(crops, tf.float32) / 255, training=False)
        return [head(features, training=False) for head in heads]

    crops = faces(setting.batch)
    repeats = max(1, 8 // setting.batch)
    (cost,) = in_turns([lambda: [forward(crops) for _ in range(repeats)]], rounds)
    each = repeats * setting.batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(cost[0] / each, cost[1] / each, peak)


def compare(folder: Path, options: Options) -> tuple[Cost, ...]:
    """Both models on one backbone, one after the other as in separate pools, and in halves."""
    from lib.common import tensorflow_settings as runtime

    runtime.configure(CORES)
    from lib.models.bundle import read_bundle
    from lib.models.tensorflow_predictor import TensorflowPredictor

    bundle, crops = read_bundle(folder), faces(options.faces)
    both = TensorflowPredictor(bundle, ("age", "gender"))
    age, gender = TensorflowPredictor(bundle, ("age",)), TensorflowPredictor(bundle, ("gender",))
    halves = TensorflowPredictor(bundle, ("age", "gender"), "bfloat16")
    taken = in_turns(
        [lambda: both(crops), lambda: (age(crops), gender(crops)), lambda: halves(crops)],
        options.rounds,
    )
    return tuple(of_each(seconds, len(crops)) for seconds in taken)


def of_each(seconds: tuple[float, float], count: int) -> Cost:
    """What one of several faces took."""
    return Cost(seconds[0] / count, seconds[1] / count)


def in_turns(runs: list[Callable[[], object]], rounds: int) -> list[tuple[float, float]]:
    """Median seconds of each run by the clock and on the CPUs; a first turn does not count."""
    taken: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, times in zip(runs, taken, strict=True):
            start = time.perf_counter(), time.process_time()
            run()
            times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return [(median(t[0] for t in times[1:]), median(t[1] for t in times[1:])) for times in taken]


if __name__ == "__main__":
    main()
