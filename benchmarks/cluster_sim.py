"""The engine alone, on a cluster that is simulated: what it can move, and whether GPUs stay busy.

    python -m benchmarks.cluster_sim --gpus 1 4 16 64

The job's own pipeline (manifest, blocks, pools, two-phase writing of the labels) with stages that sleep
for what the real ones were measured to take, and hand on as many bytes. GPUs are logical. One worker
on the CPU side stands for all the CPUs that feed a GPU: it sleeps as much less. All processes share the
cores of this machine, which real nodes do not, so what is printed is a lower bound of the engine.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

# Ray reads these on import: nobody else's cluster is met, and nobody meets this one.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
os.environ |= {"RAY_raylet_start_wait_time_s": "120"}  # many processes, few cores

# isort: split
from ray.cluster_utils import Cluster

from benchmarks.sizing import AHEAD
from lib.scoring import engine, pipeline

# isort: split
from lib.models.bundle import read_bundle
from lib.scoring.placement import FACES, MODELS, Pool
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Rows, block_rows
from lib.scoring.schema import label_schema
from lib.scoring.stages.face_arrays import face_column
from lib.scoring.stages.stage import BATCH, Stage, Stopwatch
from lib.storage.folder import folder as folder_of

MODEL = Path("models/default")
"""Whose crops travel between the pools."""


@dataclass(frozen=True)
class Options:
    """Simulate labelling on clusters of several sizes.

    Attributes:
        gpus: Logical GPUs of each cluster.
        gpu_ms: Milliseconds of one GPU for an image: age and gender.
        seconds: How long each cluster has work, roughly.
    """

    gpus: tuple[int, ...] = (1, 4, 16, 64)
    gpu_ms: float = 2.5
    seconds: float = 30.0


@dataclass
class Sleep:
    """A stage that takes its time, and gives what the real one gives.

    Attributes:
        name: of the work, for the report.
        ms: milliseconds for an image.
        side: give a crop of that many pixels for each image, as finding faces does; 0: a label row.
    """

    name: str
    ms: float
    side: int

    needs: ClassVar = ("id", "uri")
    drops: ClassVar = ()

    @property
    def gives(self) -> Sequence[str]:
        """See `Stage`."""
        return ["crops"] if self.side else label_schema().names

    def setup(self, watch: Stopwatch) -> None:
        """Prepare nothing."""
        self._watch = watch
        self._lock = Lock()  # of the device, which threads share

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Sleep for the images of the batch."""
        with self._lock, self._watch(self.name):
            time.sleep(self.ms / 1000 * len(batch))
        if self.side:
            crops = np.zeros((len(batch), self.side, self.side, 3), np.uint8)
            return batch.append_column("crops", face_column(crops, [1] * len(batch)))
        schema = label_schema(False)
        fixed = {"id": batch["id"], "uri": batch["uri"], "status": ["ok"] * len(batch)}
        nothing = {n: pa.nulls(len(batch), schema.field(n).type) for n in schema.names}
        return pa.table({**nothing, **fixed}).select(schema.names).cast(schema)


@dataclass(frozen=True)
class Sleeping:
    """Stands in for the stages of labelling.

    Attributes:
        cpu_ms: milliseconds of the first pool for an image.
        gpu_ms: the same of the second one.
        side: of the crops, in pixels.
    """

    cpu_ms: float
    gpu_ms: float
    side: int

    def batch(self, pool: Pool) -> int:
        """Images that pass the stages together."""
        return BATCH

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        """What the workers of a pool do."""
        return [Sleep(pool.name, *((self.gpu_ms, 0) if last else (self.cpu_ms, self.side)))]


@dataclass(frozen=True)
class Result:
    """What a simulated run showed, from the first committed file to the last.

    Attributes:
        rows: of all label files.
        rows_per_second: in the steady state.
        gpu_share: time that the GPUs were at work, of all their time.
        startup_seconds: from the start of the job to its first file.
    """

    rows: int
    rows_per_second: float
    gpu_share: float
    startup_seconds: float


def main() -> None:
    """Run all sizes and print a line for each."""
    options = tyro.cli(Options)
    print(f"{options.gpu_ms:g} ms of a GPU an image; "
          f"{len(os.sched_getaffinity(0))} cores for everything")  # fmt: skip
    print("  GPUs  images   rows/s  possible  of that  GPU time used  first rows after")
    for gpus in options.gpus:
        possible = gpus * 1000 / options.gpu_ms
        result = simulate(options, gpus, round(possible * options.seconds))
        print(
            f"{gpus:6}{result.rows:8,}{result.rows_per_second:9,.0f}{possible:10,.0f}"
            f"{result.rows_per_second / possible:9.2f}{result.gpu_share:15.2f}"
            f"{result.startup_seconds:16.1f} s"
        )


def simulate(options: Options, gpus: int, images: int) -> Result:
    """One run of the job's pipeline on a cluster of that many GPUs."""
    with tempfile.TemporaryDirectory(prefix="sim-", ignore_cleanup_errors=True) as folder:
        output = Path(folder)
        manifest = output / "manifest.parquet"
        pq.write_table(
            pa.table({"id": range(images), "uri": [f"{i:09}" for i in range(images)]}),
            manifest,
            row_group_size=block_rows(images),
        )
        pools = [Pool(FACES, (FACES,), gpus, 1.0, least=gpus),
                 Pool(MODELS, ("age", "gender"), gpus, 0.1, 1.0, least=gpus)]  # fmt: skip
        # One worker does what all the CPUs of a GPU do, and as far ahead.
        sleeping = Sleeping(options.gpu_ms / AHEAD, options.gpu_ms, read_bundle(MODEL).crop.size)
        with cluster(gpus, output), engine.cluster():
            state = engine.RunState("simulated")
            started = time.time()
            source = Rows((str(manifest),), None, images, ("id", "uri"))
            writer = RowWriter(folder_of(output) / "labels", "simulated")
            rows = pipeline.label(
                pipeline.places_of(source.blocks()),
                sleeping,  # type: ignore[arg-type]
                pools,
                state,
                source,
                writer,
            )
            for _ in rows.iter_batches(batch_size=None):
                pass
            busy = state.total()[MODELS]
        parts = sorted(
            (file.stat().st_mtime, pq.read_metadata(file).num_rows)
            for file in (output / "labels").glob("*.parquet")
        )
    (first, first_rows), (last, _) = parts[0], parts[-1]
    count = sum(rows for _, rows in parts)
    assert count == images
    speed = (count - first_rows) / (last - first)
    share = busy * (count - first_rows) / count / (last - first) / gpus
    return Result(count, speed, share, first - started)


@contextmanager
def cluster(gpus: int, folder: Path) -> Iterator[None]:
    """A head without work and one node with all GPUs; the environment leads there."""
    os.environ["RAY_TMPDIR"] = str(folder)
    simulated = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        simulated.add_node(num_cpus=2 * gpus + 2, num_gpus=gpus, object_store_memory=2**30)
        os.environ["RAY_ADDRESS"] = simulated.address
        yield
    finally:
        simulated.shutdown()
        del os.environ["RAY_ADDRESS"]


if __name__ == "__main__":
    main()
