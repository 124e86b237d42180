"""How soon: ten images from the command to its exit, and the first label of a cold `Labeller`.

    python -m benchmarks.start [--before CHECKOUT]

Each runs in a process of its own, several times in turns; the median is printed. With --before an earlier
version does the same.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from lib.common.demo import make_demo

LOOK_EVERY_SECONDS = 0.02
LABELLER = "import sys; from lib import Labeller; assert Labeller().label(sys.argv[1]).ok"


@dataclass(frozen=True)
class Options:
    """Measure the start.

    Attributes:
        before: Checkout of an earlier version, which labels with its own defaults.
        rounds: Times that each runs.
    """

    before: Path | None = None
    rounds: int = 5


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    checkouts = {"now": Path.cwd(), **({"before": options.before} if options.before else {})}
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        images = Path(folder, "images")
        make_demo(str(images))
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in checkouts}
        for _ in range(options.rounds):
            for name, checkout in checkouts.items():
                first, whole = job_seconds(images, Path(folder, "out"), checkout)
                runs[name].append((first, whole, labeller_seconds(images, checkout)))
    for name, times in runs.items():
        first, whole, labeller = map(statistics.median, zip(*times, strict=True))
        print(
            f"{name}: ten images in {whole:.1f} s, first row after {first:.1f} s; "
            f"a cold Labeller's first image after {labeller:.1f} s (median of {options.rounds})"
        )


def job_seconds(images: Path, output: Path, checkout: Path) -> tuple[float, float]:
    """Seconds from the command to the first file of labels, and to its exit."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.monotonic()
    job = subprocess.Popen(
        [sys.executable, "-m", "jobs.score", "--images", str(images), "--output", str(output)],
        cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    first = None
    while job.poll() is None:
        if first is None and any((output / "labels").glob("*.parquet")):
            first = time.monotonic() - started
        time.sleep(LOOK_EVERY_SECONDS)
    seconds = time.monotonic() - started
    assert job.returncode == 0
    assert any((output / "labels").glob("*.parquet"))
    return first or seconds, seconds


def labeller_seconds(images: Path, checkout: Path) -> float:
    """Seconds of a process that labels one photograph."""
    started = time.monotonic()
    command = [sys.executable, "-c", LABELLER, str(images / "portrait.jpg")]
    subprocess.run(command, cwd=checkout, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
