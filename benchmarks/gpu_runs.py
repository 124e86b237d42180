"""What `benchmarks.gpu` runs: jobs and loops, timed, with proof that the GPU did the work."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.faces.boxes import shrink_fast
from lib.faces.yunet import CANVAS, SMALLER
from lib.images import Limits, decode
from lib.models.bundle import Bundle, Precision
from lib.output.counts import LabelCounts
from lib.storage.folder import folder as folder_of

LOOK_EVERY_SECONDS = 0.2
RAMP = 0.5, 0.9
"""Parts of the results: before the first one some workers still start, behind the other one some end."""
STEADY_SECONDS = 10.0
"""Of a training's steps: enough for a rate."""
FIRST_STEP = "first step: "
"""Logged when it is over."""
STEP = re.compile(r"step (\d+) of \d+ · (\d+) images/s")
TFLOP = 1e12

_together: Any = None
"""In a process of `decoding_rate`: the barrier of all of them."""

Proof = Callable[[str], None]
"""Takes the device of a result, as TensorFlow names it; raises where it is no GPU."""


def on_gpu(device: str) -> None:
    """See `Proof`.

    Raises:
        UserError: it is no GPU.
    """
    if ":GPU:" not in device:
        raise UserError(f"no figure: this ran on {device or 'no device'}, not on a GPU")


class Busy:
    """Samples of how busy the GPU is, in percent, by the clock."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []

    def add(self, lines: Iterator[str]) -> None:
        """Take the lines of nvidia-smi: a number for each GPU, of which the first one counts."""
        for line in lines:
            if line.strip().isdigit():
                self.samples.append((time.monotonic(), float(line)))

    def share(self, start: float, end: float) -> float:
        """Mean from `start` to `end`, 0..1.

        Raises:
            UserError: the GPU did nothing then.
        """
        between = [percent for when, percent in self.samples if start <= when <= end]
        if not between or not any(between):
            raise UserError("no figure: the GPU did nothing meanwhile")
        return float(np.mean(between)) / 100


@contextmanager
def watched() -> Iterator[Busy]:
    """How busy the first GPU is, by nvidia-smi."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--loop-ms=200"]
    busy = Busy()
    with subprocess.Popen(
        [*command, "--format=csv,noheader,nounits"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        Thread(target=busy.add, args=(process.stdout,), daemon=True).start()
        try:
            yield busy
        finally:
            process.kill()


@dataclass(frozen=True)
class Run:
    """A job as it was seen from outside.

    Attributes:
        began: when, by `time.monotonic`.
        samples: times, and what was done by then: rows committed, or steps.
        rates: that the job itself gave, in images a second.
        said: its last lines.
    """

    began: float
    samples: list[tuple[float, int]]
    rates: list[float]
    said: deque[str] = field(default_factory=lambda: deque(maxlen=4))

    def read_steps(self, lines: Iterable[str]) -> None:
        """Take the log of a training."""
        for line in lines:
            self.said.append(line.strip())
            if FIRST_STEP in line:
                self.samples.append((time.monotonic(), 1))
            elif (found := STEP.search(line)) and int(found[1]) > 1:
                self.samples.append((time.monotonic(), int(found[1])))
                self.rates.append(float(found[2]))

    @property
    def first_seconds(self) -> float:
        """From the command to the first result.

        Raises:
            UserError: there was none.
        """
        return self._done[0][0] - self.began

    @property
    def steady(self) -> tuple[float, float]:
        """When half of what was done was done, and when nine tenths: all workers are at work then."""
        early, late = self._ramp
        return early[0], late[0]

    @property
    def rate(self) -> float:
        """A second, in this time.

        Raises:
            UserError: all results came at once.
        """
        early, late = self._ramp
        if late[0] <= early[0]:
            raise UserError("no figure: all results came at once; more images are needed")
        return (late[1] - early[1]) / (late[0] - early[0])

    @property
    def _ramp(self) -> tuple[tuple[float, int], tuple[float, int]]:
        early, late = (
            next(sample for sample in self._done if sample[1] >= self._done[-1][1] * part)
            for part in RAMP
        )
        return early, late

    @property
    def best_rate(self) -> float:
        """Of those that the job itself gave.

        Raises:
            UserError: it gave none.
        """
        if not self.rates:
            raise UserError("no figure: the job had no time to give a rate")
        return max(self.rates)

    @property
    def _done(self) -> list[tuple[float, int]]:
        done = [sample for n, sample in enumerate(self.samples) if sample[1] and self._is_new(n)]
        if not done:
            raise UserError(" | ".join(["no figure: nothing was done in time", *self.said]))
        return done

    def _is_new(self, number: int) -> bool:
        return number == 0 or self.samples[number][1] != self.samples[number - 1][1]


def score(
    images: Path, output: Path, seconds: float, options: Sequence[str] = (), gpu: bool = True
) -> Run:
    """Run jobs.score, for some seconds at most, and watch the rows that it commits."""
    labels = folder_of(output) / "labels"
    counts = LabelCounts(labels)
    command = [
        *(sys.executable, "-m", "jobs.score", "--images", str(images), "--output", str(output)),
        *options,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    began = time.monotonic()
    samples = []
    with _job(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and time.monotonic() < began + seconds:
            time.sleep(LOOK_EVERY_SECONDS)
            samples.append((time.monotonic(), counts.update().total()))
    return Run(began, samples, [])


def train(faces: Path, output: Path, options: Sequence[str], seconds: float) -> Run:
    """Run jobs.train until its steps give a rate, for some seconds at most, and read its log."""
    command = [
        *(sys.executable, "-m", "jobs.train", "--data", str(faces), "--output", str(output)),
        *options,
    ]
    run = Run(time.monotonic(), [], [])
    with _job(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        reader = Thread(target=run.read_steps, args=(process.stdout,), daemon=True)
        reader.start()
        end = run.began + seconds
        while process.poll() is None and time.monotonic() < end:
            time.sleep(LOOK_EVERY_SECONDS)
            if run.samples:
                end = min(end, run.samples[0][0] + STEADY_SECONDS)
        process.kill()
        reader.join()
    return run


@contextmanager
def _job(command: Sequence[str], **settings: Any) -> "Iterator[subprocess.Popen[Any]]":
    """A job that is killed at the end: to end by itself takes longer than its figures may wait."""
    with subprocess.Popen(command, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def compare_labels(gpu: pd.DataFrame, cpu: pd.DataFrame) -> tuple[float, int]:
    """Mean difference of the ages in years, and images with other faces; rows with the same uris."""
    both = gpu.merge(cpu, on="uri", suffixes=("", "_cpu"), validate="1:1")
    if not len(both) == len(gpu) == len(cpu):
        raise UserError("no figure: the CPU and the GPU labelled other images")
    same = both["face_count"] == both["face_count_cpu"]
    apart = (both["age"] - both["age_cpu"])[same].abs().mean()
    return float(apart), int((~same).sum())


def product_tflops(side: int, precision: str, repeats: int, proof: Proof) -> float:
    """Matrix products of (side, side), in TFLOP/s: the limit of what a card computes."""
    from lib.common.tensorflow_settings import tf

    a = tf.cast(tf.random.normal((side, side)), precision)
    product = tf.function(lambda x: tf.matmul(x, a) / float(side) ** 0.5)
    proof(product(a).device)

    def run() -> None:
        x = a
        for _ in range(repeats):
            x = product(x)
        float(tf.reduce_sum(x[0]))

    return 2 * side**3 * repeats / seconds_of(run) / TFLOP


def predictor_rates(
    bundle: Bundle, precision: Precision, size: int, repeats: int, proof: Proof
) -> tuple[float, float]:
    """Faces a second of the predictor, and of a plain loop of its networks over crops on the device."""
    from lib.common.tensorflow_settings import tf
    from lib.models.tensorflow_predictor import TensorflowPredictor

    tasks = bundle.tasks
    predictor = TensorflowPredictor(bundle, tasks, precision, (size,))
    crops = noise(size, bundle.crop.size)
    there = tf.constant(crops)
    plain = tf.function(lambda x: predictor.probabilities(tf.cast(x, tf.float32)))
    proof(plain(there)[tasks[0]].device)
    many = np.concatenate([crops] * repeats)

    def loop() -> None:
        for _ in range(repeats):
            answers = plain(there)
        answers[tasks[0]].numpy()

    predictor(crops)
    faces = size * repeats
    return faces / seconds_of(lambda: predictor(many)), faces / seconds_of(loop)


def detector_rate(images: Sequence[NDArray[np.uint8]], repeats: int, proof: Proof) -> float:
    """Images a second of YuNet alone, prepared before."""
    from lib.common.tensorflow_settings import tf
    from lib.faces.yunet_on_gpu import YunetInBatches

    proof(tf.zeros(()).device)
    detector = YunetInBatches()
    prepared = [detector.prepare(image) for image in images]
    detector.look(prepared)
    seconds = seconds_of(lambda: [detector.look(prepared) for _ in range(repeats)])
    return len(images) * repeats / seconds


def decoding_rate(images: Sequence[bytes], seconds: float) -> float:
    """Images a second that all cores together decode and shrink for YuNet, and do nothing else."""
    cores = len(os.sched_getaffinity(0))
    spawn = get_context("spawn")
    # All cores are at work while any of them is measured.
    with spawn.Pool(cores, _share, (spawn.Barrier(cores),)) as pool:
        return sum(pool.starmap(_decoding_rate, [(images, seconds)] * cores, chunksize=1))


def _share(barrier: Any) -> None:
    global _together
    _together = barrier


def _decoding_rate(images: Sequence[bytes], seconds: float) -> float:
    cv2.setNumThreads(1)
    _together.wait()
    began, done = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        picture = decode(images[done % len(images)], Limits(), at_least=CANVAS)
        shrink_fast(shrink_fast(picture.pixels, CANVAS), CANVAS // SMALLER)
        done += 1
    return done / took


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds by the clock."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def noise(count: int, side: int) -> NDArray[np.uint8]:
    """Crops; the time does not depend on what is seen."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
