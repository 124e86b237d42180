"""The scoring job against bare loops of the same stages: what the engine costs.

    python -m benchmarks.scoring --chips utkface-*.tar --photos photos/

For chips (already face crops) and photographs (repeated up to a number), in one run: the job in its
steady state, from the first committed file to the last, against one single-threaded process for each
core that runs the same stages over the same images without Ray, the best that the cores can do. The
loops run before and after the job and count with their mean, because machines drift. Memory is the
largest sum over all processes of the job, shared pages divided among those that share them. With
--before CHECKOUT the job of an earlier version runs over the same images, too.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psutil
import pyarrow as pa
import tyro

from lib.archive.entry import SUFFIXES
from lib.faces.registry import DEFAULT_DETECTOR, NO_DETECTOR, DetectorName, DetectorSpec
from lib.images import Limits
from lib.models.bundle import read_bundle
from lib.output.counts import LabelCounts
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import BATCH, Chain

CORES = len(os.sched_getaffinity(0))
LOOK_EVERY_SECONDS = 0.2
MEMORY_EVERY_SECONDS = 4.0
"""Adding up the pages of all processes takes time from the very cores that are measured."""


@dataclass(frozen=True)
class Options:
    """Compare the scoring job with bare loops of its stages.

    Attributes:
        chips: Tar files of face crops.
        photos: Folder of photographs.
        photo_count: The photographs are repeated to this many.
        few_chips: Chips of the run whose memory that of all chips is compared with.
        model: Bundle folder of the model.
        before: Checkout of an earlier version, which labels with its own defaults.
    """

    chips: tuple[Path, ...] = ()
    photos: Path | None = None
    photo_count: int = 1000
    few_chips: int = 5000
    model: Path = Path("models/default")
    before: Path | None = None


@dataclass(frozen=True)
class JobRun:
    """What a run of the job showed."""

    rows: int
    seconds: float
    startup_seconds: float
    images_per_second: float
    peak_memory: int


def main() -> None:
    """Run what the options give data for, and print a table for each."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory(prefix="scoring-") as folder:
        work = Path(folder)
        if options.chips:
            images = unpack(options.chips, work / "chips")
            whole = compare("chips", images, "none", options, work)
            few = run_job(images[0].parent, ("--detector", NO_DETECTOR), work, options.few_chips)
            print(f"memory at {few.rows:,} chips: {few.peak_memory / 2**20:,.0f} MiB; "
                  f"at {whole.rows:,}: {whole.peak_memory / few.peak_memory:.2f} of that")  # fmt: skip
        if options.photos:
            images = repeat(options.photos, options.photo_count, work / "photos")
            compare("photographs", images, DEFAULT_DETECTOR, options, work)


def compare(
    name: str, images: list[Path], detector: DetectorName, options: Options, work: Path
) -> JobRun:
    """Loops, job, loops; and the job of an earlier version."""
    model = options.model
    # Else the kernel writes what was just made to the disk, on the very cores that are measured.
    os.sync()
    before, _ = run_loops(images, detector, model)
    labelling = ("--detector", detector, "--model", str(model.resolve()))
    job = run_job(images[0].parent, labelling, work)
    after, profile = run_loops(images, detector, model)
    loops = (before + after) / 2
    print(f"{name}: {len(images):,} images, detector {detector}, {CORES} cores")
    print(
        f"  job: {job.rows:,} rows in {job.seconds:.0f} s, first after {job.startup_seconds:.1f} s"
    )
    print(f"  peak memory:        {job.peak_memory / 2**20:8,.0f} MiB")
    print(f"  job, steady state:  {job.images_per_second:8.1f} images/s")
    print(f"  {CORES} bare loops:       {loops:8.1f} images/s")
    print(f"  ratio:              {job.images_per_second / loops:8.2f}")
    each = ", ".join(
        f"{kind} {seconds / len(images) * 1000:.2f}" for kind, seconds in profile.items()
    )
    print(f"  milliseconds of a core for an image, in the loops: {each}")
    if options.before is not None:
        # An earlier version does not know a detector that is the default now.
        more = ("--detector", detector) if detector == NO_DETECTOR else ()
        old = run_job(images[0].parent, more, work, checkout=options.before)
        print(
            f"  job before: {old.rows:,} rows in {old.seconds:.0f} s, first after "
            f"{old.startup_seconds:.1f} s, {old.images_per_second:.1f} images/s, "
            f"{old.peak_memory / 2**20:,.0f} MiB; now "
            f"{job.images_per_second / old.images_per_second:.2f} times the speed"
        )
    return job


def run_job(
    folder: Path | str,
    options: Sequence[str],
    work: Path,
    limit: int | None = None,
    checkout: Path = Path(),
) -> JobRun:
    """Run the job as a user does and watch its files and its memory; they stay in `work/output`."""
    output = work / "output"
    shutil.rmtree(output, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "jobs.score", "--images", str(folder), "--output", str(output)),
        *options,
        *(("--limit", str(limit)) if limit else ()),
    ]
    started = looked = time.time()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=checkout
    )
    peak = 0
    counts = LabelCounts(output / "labels")
    seen = [(started, 0)]
    while process.poll() is None:
        if time.time() - looked >= MEMORY_EVERY_SECONDS:
            peak = max(peak, memory(psutil.Process(process.pid)))
            looked = time.time()
        if (rows := counts.update().total()) > seen[-1][1]:
            seen.append((time.time(), rows))
        time.sleep(LOOK_EVERY_SECONDS)
    if process.returncode:
        assert process.stderr is not None
        sys.exit(f"the job failed: {process.stderr.read().decode()}")
    seconds = time.time() - started
    rows = counts.update().total()
    (first, before), (last, after) = seen[1], seen[-1]
    return JobRun(rows, seconds, first - started, (after - before) / (last - first), peak)


def memory(process: psutil.Process) -> int:
    """Bytes of a process and all below it, each shared page counted once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # gone meanwhile
            continue
    return total


def run_loops(
    images: list[Path], detector: DetectorName, model: Path
) -> tuple[float, Counter[str]]:
    """One process for each core, all started together.

    Returns:
        Images a second of all of them, and their seconds by kind of work.
    """
    context = get_context("spawn")
    barrier, spans = context.Barrier(CORES), context.Queue()
    processes = [
        context.Process(target=loop, args=(images[core::CORES], detector, model, barrier, spans))
        for core in range(CORES)
    ]
    for process in processes:
        process.start()
    rows, starts, ends, seconds = zip(*(spans.get() for _ in processes), strict=True)
    for process in processes:
        process.join()
    assert sum(rows) == len(images)
    profile = Counter[str]()
    for of_one in seconds:
        profile.update(of_one)
    return len(images) / (max(ends) - min(starts)), profile


def loop(
    images: list[Path], detector: DetectorName, model: Path, barrier: Barrier, spans: Queue
) -> None:
    """What one worker of the job does, without the engine."""
    bundle = read_bundle(model.resolve())
    profile = Counter[str]()
    chain = Chain(
        [
            Fetch(Limits.max_bytes),
            Detect(DetectorSpec(detector), bundle.crop, Limits(), threads=1),
            Predict(bundle, ("age", "gender"), threads=1),
            Label(bundle),
        ],
        lambda more: profile.update(more),
    )
    manifest = pa.table({"id": range(len(images)), "uri": [str(image) for image in images]})
    chain(manifest.slice(0, BATCH))  # the first batch traces the graphs
    barrier.wait()
    chain.report()
    profile.clear()
    start = time.time()
    rows = sum(len(chain(manifest.slice(i, BATCH))) for i in range(0, len(images), BATCH))
    end = time.time()
    chain.report()
    spans.put((rows, start, end, dict(profile)))


def unpack(tars: Sequence[Path], folder: Path) -> list[Path]:
    """Members of the tars as files."""
    folder.mkdir()
    for tar in tars:
        with tarfile.open(tar) as archive:
            archive.extractall(folder, filter="data")
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def repeat(source: Path, count: int, folder: Path) -> list[Path]:
    """Copies of the pictures of a folder, again and again, up to a number."""
    folder.mkdir()
    pictures = sorted(path for path in source.iterdir() if path.suffix in SUFFIXES)
    copies = [folder / f"{i:06}{pictures[i % len(pictures)].suffix}" for i in range(count)]
    for i, copy in enumerate(copies):
        shutil.copyfile(pictures[i % len(pictures)], copy)
    return copies


if __name__ == "__main__":
    main()
