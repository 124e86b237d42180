"""How soon: first rows, first labels, first steps, each from its command.

    python -m benchmarks.start [--before CHECKOUT] [--faces FACES] [--rounds N]

Ten images alone and on a cluster with a logical GPU, the first image of a cold `Labeller`, and with
--faces the first step of trainings, which start Ray themselves. Everything runs in a process of its own,
and in several turns, of which the medians are printed. With --before an earlier version does the same.
"""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from lib.common.demo import make_demo
from tests.ray_head import ray_head, without_cluster

LOOK_EVERY_SECONDS = 0.02
LABELLER = "import sys; from lib import Labeller; assert Labeller().label(sys.argv[1]).ok"
STEPPED = re.compile(r"first step: |step [1-9]")
"""In the log of a training; the second is what earlier versions say."""
BACKBONES = ("compact", "efficientnet-lite0")
Environment = Mapping[str, str]


@dataclass(frozen=True)
class Options:
    """Measure the start.

    Attributes:
        before: Checkout of an earlier version, which labels with its own defaults.
        faces: `faces/` of jobs.prepare, to train on.
        rounds: Times that each runs.
    """

    before: Path | None = None
    faces: Path | None = None
    rounds: int = 5


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    checkouts = {"now": Path.cwd(), **({"before": options.before} if options.before else {})}
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        make_demo(f"{folder}/images")
        for _ in range(options.rounds):
            for name, checkout in checkouts.items():
                start = Start(checkout, Path(folder), options.faces)
                for what, value in start.seconds():
                    seconds[what][name].append(value)
    for what, of_versions in seconds.items():
        medians = {name: statistics.median(values) for name, values in of_versions.items()}
        print(f"{what}:", ", ".join(f"{name} {value:.1f} s" for name, value in medians.items()))


@dataclass(frozen=True)
class Start:
    """The starts of one version.

    Attributes:
        checkout: of the version.
        folder: with `images`; for outputs.
        faces: to train on; None: nothing is trained.
    """

    checkout: Path
    folder: Path
    faces: Path | None

    def seconds(self) -> Iterator[tuple[str, float]]:
        """Start everything once; gives what was waited for, and how long."""
        alone = without_cluster()
        first, whole = self._label(alone)
        yield "ten images, first row", first
        yield "ten images, exit", whole
        if "Labeller" in (self.checkout / "lib" / "__init__.py").read_text("utf-8"):
            yield "a cold Labeller's first image", self._labeller(alone)
        with ray_head(cpus=os.cpu_count() or 1, options=["--num-gpus=1"]) as cluster:
            first, _ = self._label(cluster.environment)
        yield "ten images on a cluster with a logical GPU, first row", first
        for backbone in BACKBONES if self.faces else ():
            yield f"jobs.train --backbone {backbone}, first step", self._train(backbone, alone)

    def _label(self, environment: Environment) -> tuple[float, float]:
        """Seconds from the command to the first file of labels, and to its exit."""
        output = self._empty("labels")
        options = ["jobs.score", "--images", str(self.folder / "images"), "--output", str(output)]
        started = time.monotonic()
        job = self._job(options, environment, self.folder / "labels.log")
        first = None
        while job.poll() is None:
            if first is None and any((output / "labels").glob("*.parquet")):
                first = time.monotonic() - started
            time.sleep(LOOK_EVERY_SECONDS)
        seconds = time.monotonic() - started
        assert job.returncode == 0
        assert any((output / "labels").glob("*.parquet"))
        return first or seconds, seconds

    def _labeller(self, environment: Environment) -> float:
        """Seconds of a process that labels one photograph."""
        started = time.monotonic()
        command = [sys.executable, "-c", LABELLER, str(self.folder / "images" / "portrait.jpg")]
        subprocess.run(
            command, cwd=self.checkout, env=environment, check=True, stderr=subprocess.DEVNULL
        )
        return time.monotonic() - started

    def _train(self, backbone: str, environment: Environment) -> float:
        """Seconds from the command to the end of the first step, after which the job is stopped."""
        output, log = self._empty("run"), self.folder / "run.log"
        options = ["--data", str(self.faces), "--output", str(output), "--backbone", backbone]
        started = time.monotonic()
        job = self._job(["jobs.train", *options], environment, log)
        while not STEPPED.search(log.read_text("utf-8")):
            assert job.poll() is None, log.read_text("utf-8")
            time.sleep(LOOK_EVERY_SECONDS)
        seconds = time.monotonic() - started
        job.send_signal(signal.SIGINT)
        job.wait()
        return seconds

    def _job(
        self, options: list[str], environment: Environment, log: Path
    ) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *options], cwd=self.checkout, env=environment,
                stdout=output, stderr=output,
            )  # fmt: skip

    def _empty(self, name: str) -> Path:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


if __name__ == "__main__":
    main()
