"""Images → label rows on Ray: the stages of labelling, shared out among pools of workers.

Importing this imports Ray, which takes seconds; jobs do so when their options have been checked.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.scoring import engine

# isort: split
# Only behind the engine, which sets up the environment for Ray Data.
import pyarrow as pa
import pyarrow.fs
import ray.data

from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, Precision
from lib.scoring.placement import FACES, TASK_CPUS, Pool
from lib.scoring.stages.detect import FindFaces
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import Chain, Stage
from lib.storage.folder import Folder

BATCH = 32
"""Images that pass the stages together; what is in memory of each worker at a time."""
BATCH_BYTES = 64 << 20
"""Encoded images of a batch, where their sizes are known before they are read."""
READERS = 2
"""Tasks that read the rows: each is a process of its own, and rows of a manifest are small. Those of
jobs/evaluate.py hold their images: there it bounds how fast a large cluster is fed."""
CPUS_PER_WRITER = 4
"""A core makes about one block of labels in two seconds; a task writes it in less than one."""
BLOCKS = 48
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 512
"""A block is what is committed at a time, about 48 of them for small archives. Small ones lose less
when a run is killed and leave no worker idle at the end; large ones make fewer files."""


@dataclass(frozen=True)
class Labelling:
    """How images are labelled.

    Attributes:
        source: the first stage, which gives `data`, `status` and `error` of every image.
        detector: how to find faces.
        limits: what is not decoded at all.
        bundle: the model.
        age_distribution: give the whole distribution of each age, too.
        carry: columns of the rows that go into the labels as they are.
        precision: what the networks compute in.
    """

    source: Stage
    detector: DetectorSpec
    limits: Limits
    bundle: Bundle
    age_distribution: bool
    carry: tuple[str, ...] = ()
    precision: Precision = "float32"

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        """What the workers of a pool do, in order; those of the last one make the label rows."""
        chain: list[Stage] = []
        if FACES in pool.stages:
            chain.append(self.source)
            chain.append(FindFaces(self.detector, self.bundle.crop, self.limits, pool.threads))
        tasks = tuple(stage for stage in pool.stages if stage in self.bundle.networks)
        if tasks:
            chain.append(Predict(self.bundle, tasks, pool.threads, self.precision))
        if last:
            chain.append(Label(self.bundle, self.age_distribution, self.carry))
        return chain


def with_work(pools: Sequence[Pool], bundle: Bundle) -> list[Pool]:
    """Without the pools of tasks that the model does not know."""
    return [p for p in pools if any(s == FACES or s in bundle.networks for s in p.stages)]


def block_count(images: int) -> int:
    """Blocks for that many images."""
    rows = min(max(1, round(images / BLOCKS / SMALLEST_BLOCK)) * SMALLEST_BLOCK, LARGEST_BLOCK)
    return max(1, -(-images // rows))


def read_rows(
    files: Sequence[Path | str],
    columns: Sequence[str] | None,
    count: int,
    filesystem: pyarrow.fs.FileSystem | None = None,
) -> ray.data.Dataset:
    """Some or all columns of Parquet files with `count` rows together, in blocks of the right size."""
    return ray.data.read_parquet(
        [str(file) for file in files],
        columns=None if columns is None else list(columns),
        filesystem=filesystem,
        partitioning=None,
        override_num_blocks=block_count(count),
        num_cpus=TASK_CPUS,
        concurrency=READERS,
    )


def write_rows(rows: ray.data.Dataset, labels: Folder, cpus: float) -> None:
    """Compute the rows and write them, a file for each block.

    Args:
        rows: of labels.
        labels: where to.
        cpus: of the cluster. Without a limit Ray starts a process for every block that waits.
    """
    rows.write_parquet(
        labels.path,
        filesystem=labels.filesystem,
        ray_remote_args={"num_cpus": TASK_CPUS},
        concurrency=max(2, round(cpus / CPUS_PER_WRITER)),
    )


class Worker:
    """The stages of a pool; what Ray makes of them in each of its workers."""

    def __init__(self, stages: Sequence[Stage], report: Callable[[dict[str, float]], None]) -> None:
        self._chain = Chain(stages, report)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Send a block through the stages, batch by batch."""
        yield from self._chain.stream(block, BATCH, BATCH_BYTES)


def label(
    rows: ray.data.Dataset,
    labelling: Labelling,
    pools: Sequence[Pool],
    report: Callable[[dict[str, float]], None] = lambda seconds: None,
) -> ray.data.Dataset:
    """Send rows through all pools; streaming, hence nothing is computed yet.

    Args:
        rows: what the source of `labelling` takes.
        labelling: what is to be done.
        pools: where, in the order in which an image passes them.
        report: called after every batch with the seconds that each kind of work took.

    Returns:
        The rows of `lib.scoring.schema`, in any order.
    """
    for pool in pools:
        # `map_batches` itself refuses whole blocks where GPUs are asked for; the rest is the same.
        rows = rows.map_batches_internal(
            Worker,
            fn_constructor_args=(labelling.stages(pool, pool is pools[-1]), report),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=engine.pool(pool.least, pool.actors),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
        )
    return rows
