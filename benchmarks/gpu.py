"""What a GPU makes of labelling and training, in five minutes.

    python -m benchmarks.gpu [--parts chips photographs] [--images FOLDER]

Each part has a time limit of its own, and prints a figure as soon as it has it. What did not run on the
GPU gives no figure. The pictures are made from a portrait, or the photographs come from a folder of
JPEGs; the weights of VGG-Face are random: the time does not depend on them.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from benchmarks import gpu_runs as runs
from benchmarks.gpu_pictures import write_pictures
from lib.common import options as command_line
from lib.common.errors import UserError
from lib.common.gpus import usable_gpus
from lib.images import Limits, decode
from lib.models.bundle import DEFAULT_MODEL, Bundle, Precision, read_bundle

Part = Literal[
    "device",
    "predictor",
    "detector",
    "photographs",
    "chips",
    "labels",
    "training",
    "vgg-face",
    "vgg-training",
    "vgg-frozen",
]
LIMITS: dict[Part, int] = {
    "device": 10,
    "predictor": 20,
    "detector": 10,
    "photographs": 50,
    "chips": 26,
    "labels": 30,
    "training": 37,
    "vgg-face": 42,
    "vgg-training": 38,
    "vgg-frozen": 37,
}
"""Seconds, five minutes together."""
PHOTOGRAPHS, CHIPS = 12_000, 60_000
FACES = 100_000
"""To train on: of fewer the batches would be smaller than a GPU needs."""
BARE_SECONDS = 3.0
"""Of a loop that only decodes."""
FIRST_ROW_SECONDS = 7.0
"""Of a job whose first row is wanted."""
LEFT_TO_CPUS = 9.0
"""Seconds for the labels that those of the GPU are compared with."""
HALF = ("--precision", "float16")
"""Options with which only the GPU labels."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
CLOSE_YEARS = 0.05


@dataclass(frozen=True)
class Options:
    """Measure labelling and training on the GPU of this machine.

    Attributes:
        parts: What to measure.
        images: Folder of JPEGs for photographs; without it they are made.
    """

    parts: tuple[Part, ...] = get_args(Part)
    images: Path | None = None


def main() -> int:
    """Run the parts one after the other; 1 where one of them has no figure."""
    options = command_line.parse(Options, None)
    gpus, problem = usable_gpus()
    if not gpus:
        raise UserError(
            f"no GPU can be used here ({problem or 'there is none'}): no figure is printed"
        )
    if options.images is not None and not any(options.images.rglob("*.jp*g")):
        raise UserError(f"--images {str(options.images)!r} has no JPEG")
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_pictures(folder, PHOTOGRAPHS, CHIPS, FACES, options.images)
        done = [run(part, folder, LIMITS[part]) for part in options.parts]
        return int(not all(done))


def run(part: Part, folder: Path, seconds: float) -> bool:
    """Run a part in a process of its own, which is ended with all that it has started when it is late."""
    process = get_context("spawn").Process(target=_run_here, args=(part, folder, seconds))
    process.start()
    process.join(seconds)
    if process.is_alive():
        say(f"{part}: stopped after {seconds:.0f} s")
        assert process.pid is not None
        with suppress(ProcessLookupError):  # it has no group of its own yet
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.join()
    return process.exitcode == 0


def _run_here(part: Part, folder: Path, seconds: float) -> None:
    os.setsid()
    try:
        PARTS[part](folder, seconds)
    except UserError as error:
        say(f"{part}: {error}")
        sys.exit(1)


def device(folder: Path, seconds: float) -> None:
    """Device, versions, and the limit of the card."""
    import keras

    from lib.common.tensorflow_settings import compute_float32_in_full, configure, first_gpu, tf

    configure(1)
    compute_float32_in_full()
    gpu = first_gpu()
    if gpu is None:
        raise UserError("TensorFlow sees no GPU")
    cores = len(os.sched_getaffinity(0))
    say(
        f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB, compute capability {gpu.capability}; {cores} cores"
    )
    say(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {sys.version.split()[0]}")
    for precision in PRECISIONS:
        rate = runs.product_tflops(8192, precision, 20, runs.on_gpu)
        say(f"matrix products in {precision}: {rate:.0f} TFLOP/s")


def predictor(folder: Path, seconds: float) -> None:
    """The embedded model, by precision and batch."""
    predictor_lines(read_bundle(DEFAULT_MODEL), (512, 64), 20, runs.on_gpu)


def predictor_lines(
    bundle: Bundle,
    sizes: tuple[int, ...],
    repeats: int,
    proof: runs.Proof,
    precisions: Sequence[Precision] = PRECISIONS[::-1],
) -> None:
    """Print a line for each precision and number of faces in a call."""
    from lib.common.tensorflow_settings import compute_float32_in_full

    compute_float32_in_full()
    for precision in precisions:
        for size in sizes:
            rate, plain = runs.predictor_rates(bundle, precision, size, repeats, proof)
            say(
                f"{bundle.name} in {precision}, {size} a call: {rate:,.0f} faces/s, "
                f"{rate / plain:.2f} of a plain loop on the device"
            )


def detector(folder: Path, seconds: float) -> None:
    """YuNet alone."""
    files = sorted((folder / "photographs").iterdir())[:64]
    images = [decode(file.read_bytes(), Limits(), at_least=640).pixels for file in files]
    rate = runs.detector_rate(images, 20, runs.on_gpu)
    say(f"YuNet in batches: {rate:,.0f} images/s")


def photographs(folder: Path, seconds: float) -> None:
    """The job on photographs, and what the cores can decode at most."""
    some = [file.read_bytes() for file in sorted((folder / "photographs").iterdir())[:64]]
    bare = runs.decoding_rate(some, BARE_SECONDS)
    say(f"decoding and shrinking alone, on all cores: {bare:,.0f} photographs/s")
    with _folder_in(folder) as output:
        run = runs.score(folder / "photographs", Path(output), FIRST_ROW_SECONDS)
    say(f"with the cores until the GPU has started: first row after {run.first_seconds:.1f} s")
    left = seconds - 2 * BARE_SECONDS - FIRST_ROW_SECONDS
    scored(folder, "photographs", left, *HALF)


def chips(folder: Path, seconds: float) -> None:
    """The job on face crops, from the GPU alone: the cores would label most of them before it starts."""
    scored(folder, "chips", seconds, "--detector", "none", *HALF)


def vgg_face(folder: Path, seconds: float) -> None:
    """The predictor of VGG-Face, and the job with it."""
    from benchmarks.vgg_face import make_bundle
    from lib.common.tensorflow_settings import configure

    began = time.monotonic()
    configure(1)  # it leaves memory for the job
    model = make_bundle(folder)
    predictor_lines(read_bundle(model), (256,), 4, runs.on_gpu, ("float16",))
    left = began + seconds - time.monotonic()
    scored(folder, "chips", left, "--detector", "none", "--model", str(model))


def _folder_in(folder: Path) -> "tempfile.TemporaryDirectory[str]":
    """For the output of a job that is killed: what it leaves may still write for a moment."""
    return tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)


def scored(folder: Path, images: str, seconds: float, *options: str) -> None:
    """Print what a run of jobs.score showed."""
    with runs.watched() as busy, _folder_in(folder) as output:
        run = runs.score(folder / images, Path(output), seconds - 2, options)
    share = busy.share(*run.steady)
    say(
        f"jobs.score on {images} {' '.join(options)}: first row after {run.first_seconds:.1f} s, "
        f"then {run.rate:,.0f} images/s; GPU busy {share:.0%}"
    )


def labels(folder: Path, seconds: float) -> None:
    """Labels of the GPU against those of the CPU."""
    frames = []
    images = len(list((folder / "few").iterdir()))
    for gpu, some in ((True, seconds - LEFT_TO_CPUS - 2), (False, LEFT_TO_CPUS)):
        output = folder / f"labels-{gpu}"
        with runs.watched() as busy:
            run = runs.score(folder / "few", output, some, HALF if gpu else (), gpu)
        if run.samples[-1][1] < images:
            raise UserError("no figure: not all were labelled in time")
        if gpu:
            busy.share(run.began, run.samples[-1][0])  # refuses a GPU that did nothing
        frames.append(pd.read_parquet(output / "labels"))
    apart, others = runs.compare_labels(*frames)
    say(
        f"labels: ages {apart:.4f} years from the CPU's on average, {others} images with other faces"
    )
    if others or not apart <= CLOSE_YEARS:
        raise UserError(f"the labels are not those of the CPU within {CLOSE_YEARS} years")


def training(folder: Path, seconds: float) -> None:
    """The training job with the small backbone."""
    trained(folder, seconds, "--backbone", "efficientnet-lite0", "--size", "96")


def vgg_training(folder: Path, seconds: float) -> None:
    """The training job with VGG-Face, all of whose layers learn."""
    trained(folder, seconds, "--backbone", "vgg-face", "--size", "224", "--frozen-epochs", "0")


def vgg_frozen(folder: Path, seconds: float) -> None:
    """The same, whose convolutions stay as they are."""
    trained(folder, seconds, "--backbone", "vgg-face", "--size", "224", "--frozen-epochs", "-1")


def trained(folder: Path, seconds: float, *options: str) -> None:
    """Print what a run of jobs.train showed."""
    with runs.watched() as busy, _folder_in(folder) as output:
        run = runs.train(folder / "faces", Path(output), options, seconds - 2)
    first, rate = run.first_seconds, run.best_rate
    share = busy.share(run.began + first, run.samples[-1][0])
    say(
        f"jobs.train {' '.join(options)}: first step after {first:.1f} s, "
        f"then {rate:,.0f} faces/s; GPU busy {share:.0%}"
    )


def say(line: str) -> None:
    """Print a line now."""
    print(line, flush=True)


PARTS: dict[Part, Callable[[Path, float], None]] = {
    "device": device,
    "predictor": predictor,
    "detector": detector,
    "photographs": photographs,
    "chips": chips,
    "labels": labels,
    "training": training,
    "vgg-face": vgg_face,
    "vgg-training": vgg_training,
    "vgg-frozen": vgg_frozen,
}

if __name__ == "__main__":
    command_line.run(main)
