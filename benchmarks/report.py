"""How long the report and the status of a large archive take, how heavy the page is, and how much memory.

    python -m benchmarks.report

Made-up labels in files as small as those of jobs/score.py; all rows are of one picture, of one to three
faces. Both jobs run as processes of their own, their start included.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from lib.archive.manifest import Manifest
from lib.common.demo import make_demo
from lib.output.run_record import RunRecord, claim
from lib.scoring.schema import label_schema
from lib.storage.folder import folder

FILE_ROWS = 500


@dataclass(frozen=True)
class Options:
    """Measure the report and the status of made-up labels.

    Attributes:
        rows: How many.
    """

    rows: int = 1_000_000


def main() -> None:
    """Make labels, run both jobs."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as work:
        make_demo(f"{work}/images")
        make_labels(Path(work, "out"), f"{work}/images/portrait.jpg", options.rows)
        page = Path(work, "report.html")
        print(f"{options.rows:,} rows in files of {FILE_ROWS}")
        measure("jobs.status", f"{work}/out")
        measure("jobs.report", "--labels", f"{work}/out", "--output", str(page))
        print(f"the page has {page.stat().st_size / 1e6:.1f} MB")


def make_labels(output: Path, uri: str, rows: int) -> None:
    """Lay out an output as jobs/score.py does."""
    claim(output, RunRecord("jobs.score", {"images": [uri], "model": "made-up@1"}))
    (output / "labels").mkdir()
    manifest = Manifest(rows, bytes=0, skipped={}, digest="", parts=(), next_id=rows)
    manifest.declare(folder(output / "manifest"))
    table = pa.Table.from_pylist(list(made_up(uri)), schema=label_schema())
    for first in range(0, rows, FILE_ROWS):
        ids = pa.array(np.arange(first, first + FILE_ROWS))
        part = table.set_column(0, table.schema.field("id"), ids).slice(0, rows - first)
        pq.write_table(part, output / "labels" / f"{first:09}.parquet")


def made_up(uri: str) -> Iterator[dict[str, object]]:
    """Rows of one file: nine in ten have faces."""
    rng = np.random.default_rng(0)
    box = {"x": 180, "y": 110, "width": 150, "height": 190}
    for _ in range(FILE_ROWS):
        faces = [
            {
                "age": float(rng.uniform(0, 100)),
                "age_std": float(rng.uniform(2, 20)),
                "age_low": 20.0,
                "age_high": 40.0,
                "gender": str(rng.choice(["female", "male"])),
                "gender_score": float(rng.uniform(0.5, 1)),
                "box": box,
                "face_score": 0.99,
            }
            for _ in range(rng.integers(1, 4) if rng.random() < 0.9 else 0)
        ]
        row = {"uri": uri, "status": "ok" if faces else "no_face", "face_count": len(faces)}
        yield {**row, "faces": faces, "model": "made-up@1", **(faces[0] if faces else {})}


def measure(job: str, *options: str) -> None:
    """Run a job; print its seconds, those of the CPUs, and its largest memory."""
    started, largest, cpu_seconds = time.monotonic(), 0, 0.0
    with psutil.Popen([sys.executable, "-m", job, *options], stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            largest = max(largest, process.memory_info().rss)
            cpu_seconds = sum(process.cpu_times()[:2])
            time.sleep(0.01)
    assert process.returncode == 0
    seconds = time.monotonic() - started
    print(f"{job}: {seconds:.1f} s, {cpu_seconds:.1f} CPU seconds, {largest / (1 << 20):.0f} MiB")


if __name__ == "__main__":
    main()
