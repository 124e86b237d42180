"""The scoring job against Daft, which runs the same stages: `pip install daft==0.7.26` first.

    python -m benchmarks.vs_daft --chips utkface-*.tar --photos photos/

Both label the same images, in turns, once half of them and once all: the difference is the steady state
without start and end. CPU seconds are those of all processes. In Daft the stages are a class UDF, with
a process for each core, and its rows are written as Parquet.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from benchmarks.scoring import CORES, repeat, unpack
from lib.faces.registry import DEFAULT_DETECTOR, NO_DETECTOR, DetectorSpec
from lib.images import Limits
from lib.models.bundle import DEFAULT_MODEL, read_bundle
from lib.scoring.schema import label_schema
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import BATCH, Chain

ROUNDS = 2
CPU_EVERY_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """Compare the scoring job with Daft.

    Attributes:
        chips: Tar files of face crops.
        photos: Folder of photographs.
        chip_count: Chips to label.
        photo_count: The photographs are repeated to this many.
        rounds: Times that both run.
    """

    chips: tuple[Path, ...] = ()
    photos: Path | None = None
    chip_count: int = 9674
    photo_count: int = 1000
    rounds: int = ROUNDS


@dataclass(frozen=True)
class Run:
    """One run: images labelled, seconds from the command to its exit, CPU seconds."""

    images: int
    seconds: float
    cpu: float


def main() -> None:
    """Run what the options give data for, and print a table for each."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory(prefix="vs-daft-") as folder:
        work = Path(folder)
        if options.chips:
            images = unpack(options.chips, work / "chips")[: options.chip_count]
            compare("chips", images, NO_DETECTOR, options.rounds, work)
        if options.photos:
            images = repeat(options.photos, options.photo_count, work / "photos")
            compare("photographs", images, DEFAULT_DETECTOR, options.rounds, work)


def compare(name: str, images: list[Path], detector: str, rounds: int, work: Path) -> None:
    """Run both in turns over half of the images and over all."""
    lists = []
    for count in (len(images) // 2, len(images)):
        lists.append(work / f"{name}-{count}.csv")
        lists[-1].write_text("\n".join(["path", *map(str, images[:count])]) + "\n")
    output = work / "output"
    commands = {
        "jobs.score": lambda images: [
            *("jobs.score", "--images", str(images), "--output", str(output)),
            *("--detector", detector),
        ],
        "Daft": lambda images: [
            "benchmarks.vs_daft",
            "--label",
            str(images),
            str(output),
            detector,
        ],
    }
    os.sync()
    print(f"{name}: {len(images):,} images, detector {detector}, {CORES} cores, {rounds} rounds")
    runs: dict[str, list[list[Run]]] = {way: [[], []] for way in commands}
    for _ in range(rounds):
        for size, images_list in enumerate(lists):
            for way, command in commands.items():
                runs[way][size].append(run(command(images_list), output))
    for way, (half, whole) in runs.items():
        seconds, cpu = best(whole)
        half_seconds, half_cpu = best(half)
        more = whole[0].images - half[0].images
        print(
            f"  {way:11} {whole[0].images:,} rows: {seconds:6.1f} s, {cpu:6.1f} CPU s; steady state: "
            f"{more / (seconds - half_seconds):7.1f} images/s, "
            f"{(cpu - half_cpu) / more * 1000:.2f} ms of CPU each"
        )


def best(runs: Sequence[Run]) -> tuple[float, float]:
    """Least seconds and least CPU seconds: all that disturbs a run makes it longer."""
    return min(run.seconds for run in runs), min(run.cpu for run in runs)


def run(arguments: Sequence[str], output: Path) -> Run:
    """Run a module to its end, and count the rows of its files."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.monotonic()
    process = psutil.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    seen: dict[tuple[int, float], float] = {}
    while process.poll() is None:
        for one in (process, *children(process)):
            try:
                times = one.cpu_times()
                seen[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:  # gone meanwhile
                continue
        time.sleep(CPU_EVERY_SECONDS)
    seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{arguments[0]} failed: {process.stderr.read().decode()}")
    rows = sum(
        pq.read_metadata(file).num_rows for file in output.rglob("*.parquet") if is_labels(file)
    )
    return Run(rows, seconds, sum(seen.values()))


def children(process: Any) -> list[Any]:
    """The processes below one, which may end at any time."""
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def is_labels(file: Path) -> bool:
    """Whether a file holds label rows, and not the list of images."""
    return file.parent.name != "manifest"


def label_in_daft(images: Path, output: Path, detector: str) -> None:
    """The stages of the job as a class UDF of Daft."""
    os.environ |= {"DAFT_PROGRESS_BAR": "0", "DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1"}
    import daft

    row = pa.struct(label_schema())

    @daft.cls(max_concurrency=CORES, use_process=True)
    class Labeller:
        def __init__(self) -> None:
            bundle = read_bundle(DEFAULT_MODEL)
            self.chain = Chain(
                [
                    Fetch(Limits.max_bytes),
                    Detect(DetectorSpec(detector), bundle.crop, Limits(), threads=1),
                    Predict(bundle, bundle.tasks, threads=1),
                    Label(bundle),
                ]
            )

        @daft.method.batch(return_dtype=daft.DataType.from_arrow_type(row), batch_size=BATCH)
        def label(self, ids: Any, uris: Any) -> pa.Array:
            rows = self.chain(pa.table({"id": ids.to_arrow(), "uri": uris.to_arrow()}))
            return pa.concat_arrays(rows.cast(pa.schema(row)).to_struct_array().chunks)

    paths = images.read_text().splitlines()[1:]
    rows = daft.from_pydict({"id": list(range(len(paths))), "uri": paths})
    rows = rows.with_column("row", Labeller().label(rows["id"], rows["uri"]))
    rows.write_parquet(str(output))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--label"]:
        label_in_daft(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        main()
