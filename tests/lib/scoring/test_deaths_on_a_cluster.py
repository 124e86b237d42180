"""An image that ends every worker, on a real cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.ray_head import PROJECT, RayHead

COUNT, FATAL = 300, 100
FEW = 5
PROGRAM = """
import json, sys
from lib.scoring import engine, pipeline
from lib.scoring.placement import FACES, Pool
from lib.scoring.rows import Rows
from tests.lib.scoring.test_on_this_machine import Square, Work
file, count, trouble, once = sys.argv[1:]
rows = Rows((file,), None, int(count))
pools = [Pool(FACES, (FACES,), 2, 0.5)]
with engine.failures_in_one_line("again"), engine.cluster():
    labels = pipeline.label(
        pipeline.places_of(rows.blocks()), Work(None, Square(trouble, once)), pools,
        engine.RunState("test"), rows,
    )
    print(json.dumps(labels.to_pandas().to_dict("records")))
"""


def label(head: RayHead, count: int, trouble: str, once: Path) -> subprocess.CompletedProcess[str]:
    """Label so many rows on the cluster."""
    file = once.with_name("rows.parquet")
    pq.write_table(pa.table({"id": range(count)}), file, row_group_size=16)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), str(count), trouble, str(once)],
        cwd=PROJECT, env=head.environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("trouble", ["killed once", "killed always"])
def test_it_gets_a_row_and_all_others_their_labels(
    head: RayHead, trouble: str, tmp_path: Path
) -> None:
    """Where it ends them once only, it gets its label, too."""
    once = tmp_path / "once"
    done = label(head, COUNT, trouble, once)
    assert done.returncode == 0, done.stderr
    # Ray says something of lost workers, too.
    (line,) = (line for line in done.stdout.splitlines() if line.startswith('[{"'))
    rows = sorted(json.loads(line), key=lambda row: row["id"])
    assert [(row["id"], row["square"]) for row in rows] == [(n, n * n) for n in range(COUNT)]
    faults = {row["id"]: row["fault"] for row in rows if row["fault"]}
    assert once.exists() == (trouble == "killed once")
    assert faults == (
        {}
        if trouble == "killed once"
        else {FATAL: "decode_error: it ended the process that read it, 2 times"}
    )


def test_workers_that_always_end_stop_the_run(head: RayHead, tmp_path: Path) -> None:
    """Even at an image that is not read any more: the run is over, and says what to look at."""
    done = label(head, FEW, "always", tmp_path / "once")
    assert done.returncode != 0
    assert "the worker processes end by themselves: is there enough memory?" in done.stderr
