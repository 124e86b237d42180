"""Is preparing IMDB-WIKI complete, and does its memory stay flat?

    python -m benchmarks.prepare --chips UTKFACE_TARS

A made-up imdb.mat with faults of every kind and one tar, over the chips again and again with a comment
in each, so that no two have the same bytes. Memory is the proportional share (PSS) of the job and all
processes of its Ray, the shared object store included, sampled every other second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from lib.datasets.image_sources import open_sources
from tests.made_imdb import KEPT, ROUND, UNNAMED, MadeImdb, make_imdb

GIB = 1 << 30
MAX_GIB = 4.0
MAX_GROWTH = 1.1
"""Peak of the second half of the run over that of the first."""
CHIPS = 2000
WITH_AN_IMAGE = ("unreadable_image", "too_small", "duplicate", "duplicate_conflict")
"""The rules that can only be asked once the image has been read."""
EVERY_SECONDS = 2.0


def read_chips(tars: Sequence[str]) -> list[bytes]:
    """The first chips of the tars."""
    chips: list[bytes] = []
    for source in open_sources(tars):
        for shard in source.shards():
            for image in shard:
                chips.append(image.read(1 << 20))
                if len(chips) == CHIPS:
                    return chips
    return chips


def prepare(made: MadeImdb, output: Path, size: int, temporary: Path) -> list[float]:
    """Run the job, and give the memory of all its processes over time, in GiB."""
    environment = {**os.environ, "RAY_TMPDIR": str(temporary)}
    environment.pop("RAY_ADDRESS", None)
    command = [
        *(sys.executable, "-m", "jobs.prepare", "--source", "imdb-wiki", "--size", str(size)),
        *("--metadata", str(made.metadata), "--images", str(made.tar), "--output", str(output)),
    ]
    samples = []
    with subprocess.Popen(command, env=environment) as job:
        while job.poll() is None:
            samples.append(sum(_memory(temporary)) / GIB)
            time.sleep(EVERY_SECONDS)
    if job.returncode:
        sys.exit(f"the job ended with {job.returncode}")
    return samples


def _memory(temporary: Path) -> Iterator[int]:
    """Bytes of each process with that RAY_TMPDIR: the job and its Ray."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_TMPDIR") == str(temporary):
                yield process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue


def main() -> None:
    """Make, prepare, compare, and fail if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", required=True, help="tars of face chips")
    parser.add_argument("--rows", type=int, default=200_000, help=f"a multiple of {ROUND}")
    parser.add_argument("--size", type=int, default=256, help="as for the job")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="prepare-") as name:
        folder = Path(name)
        made = make_imdb(folder, read_chips(options.chips), options.rows // ROUND)
        print(
            f"{len(made.rules):,} rows, a tar of {made.tar.stat().st_size / GIB:.2f} GiB",
            flush=True,
        )
        samples = prepare(made, folder / "out", options.size, folder / "ray")
        summary = json.loads((folder / "out/summary.json").read_text())

    counts = {KEPT: summary["kept"], **summary["dropped"]}
    half = len(samples) // 2
    first, second = max(samples[:half]), max(samples[half:])
    looked_at = sum(made.counts[rule] for rule in (KEPT, *WITH_AN_IMAGE))
    print(f"{looked_at / summary['seconds']:.0f} images/s with start-up")
    print(f"memory of all processes: {first:.2f} GiB in the first half, {second:.2f} in the second")
    claims = {
        "every row under its rule": counts == dict(made.counts),
        "images that the metadata does not name": summary["images"]["unnamed"] == UNNAMED,
        f"below {MAX_GIB:g} GiB": max(first, second) < MAX_GIB,
        "flat": second < MAX_GROWTH * first,
    }
    for claim, holds in claims.items():
        print(f"{'yes' if holds else 'NO '}  {claim}")
    sys.exit(not all(claims.values()))


if __name__ == "__main__":
    main()
