"""Images → label rows on Ray: the stages of labelling, shared out among pools of workers.

Importing this imports Ray, which takes seconds; jobs do so when their options have been checked.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lib.scoring import engine

# isort: split
# Only behind the engine, which sets up the environment for Ray Data.
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import ray.data

from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, Precision
from lib.scoring import rates
from lib.scoring.placement import FACES, TASK_CPUS, Cluster, Placement, Pool, place
from lib.scoring.schema import KEYS
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import BATCH, Chain, Stage
from lib.storage.folder import Folder

BATCH_BYTES = 64 << 20
"""Encoded images of a batch, where their sizes are known before they are read."""
READERS = 2
"""Tasks that read the rows: each is a process of its own, and rows of a manifest are small. Labelled
faces hold their images: there it bounds how fast a large cluster is fed."""
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
        keys: columns of the rows that name an image, which the labels begin with.
        finish: stages for the label rows.
        precision: what the networks compute in.
    """

    source: Stage
    detector: DetectorSpec
    limits: Limits
    bundle: Bundle
    age_distribution: bool
    carry: tuple[str, ...] = ()
    precision: Precision = "float32"
    keys: tuple[str, ...] = KEYS
    finish: tuple[Stage, ...] = ()

    def pools(self, wanted: Placement, cluster: Cluster, blocks: float = math.inf) -> list[Pool]:
        """The pools for this work on a cluster: see `lib.scoring.placement.place`."""
        return place(
            wanted,
            cluster,
            tuple(self.bundle.networks),
            self.bundle.backbone is not None,
            self.bundle.weight_bytes,
            blocks,
            self.detector.entry.worker_gib,
        )

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        """What the workers of a pool do, in order; those of the last one make the label rows."""
        chain: list[Stage] = []
        if FACES in pool.stages:
            source = self.source
            chain.append(source.for_one_of(pool.actors) if isinstance(source, Fetch) else source)
            chain.append(Detect(self.detector, self.bundle.crop, self.limits, pool.threads))
        if tasks := tuple(stage for stage in pool.stages if stage != FACES):
            on_gpu = pool.gpus > 0
            chain.append(Predict(self.bundle, tasks, pool.threads, self.precision, on_gpu))
        if last:
            chain.append(Label(self.bundle, self.age_distribution, self.carry, self.keys))
            chain.extend(self.finish)
        return chain


def block_count(images: int) -> int:
    """Blocks for that many images."""
    rows = min(max(1, round(images / BLOCKS / SMALLEST_BLOCK)) * SMALLEST_BLOCK, LARGEST_BLOCK)
    return max(1, -(-images // rows))


@dataclass(frozen=True)
class Rows:
    """Rows to label, in Parquet files.

    Attributes:
        files: on the file system.
        filesystem: where the files are; None: on this machine.
        count: rows of all files together.
        columns: to read; None: all.
        checkpoint: folder in which Ray Data commits the rows that it writes (see `lib.output.commits`),
            outside of what is written; None: rows are not committed.
    """

    files: Sequence[str]
    filesystem: pyarrow.fs.FileSystem | None
    count: int
    columns: Sequence[str] | None = None
    checkpoint: Folder | None = None

    def read(self) -> ray.data.Dataset:
        """The rows, in blocks of the right size."""
        if self.checkpoint is not None:
            engine.commit_rows_in(self.checkpoint)
        return ray.data.read_parquet(
            list(self.files),
            columns=None if self.columns is None else list(self.columns),
            filesystem=self.filesystem,
            partitioning=None,
            override_num_blocks=block_count(self.count),
            num_cpus=TASK_CPUS,
            concurrency=READERS,
        )

    def first_rows(self, file: str) -> pa.Table:
        """The first row group of a file: the rows of a manifest, but not gigabytes of faces."""
        columns = None if self.columns is None else list(self.columns)
        with pq.ParquetFile(file, filesystem=self.filesystem) as rows:
            return rows.read_row_group(0, columns)


@dataclass(frozen=True)
class Labelled:
    """Label rows on a cluster, not computed yet.

    Attributes:
        rows: of labels, in any order.
        cpus: of the cluster when it has grown.
        work_seconds: gives the seconds by kind of work so far.
    """

    rows: ray.data.Dataset
    cpus: float
    work_seconds: Callable[[], dict[str, float]]


@contextmanager
def labelled(
    rows: Rows, labelling: Labelling, wanted: Placement, remedy: str, run: str = ""
) -> Iterator[Labelled]:
    """Connect to a cluster or start one, share the work out among pools, and label; streaming.

    Args:
        rows: what the source of `labelling` takes.
        labelling: what is to be done.
        wanted: of the pools.
        remedy: what the user can do where the run stops.
        run: id of the run, for metrics.

    Raises:
        UserError: the pools do not fit the cluster, or what stopped the run.
    """
    with engine.failures_in_one_line(remedy), engine.cluster() as resources:
        cluster = Cluster.of(resources, wanted.max_cluster)
        pools = labelling.pools(wanted, cluster, block_count(rows.count))
        pools = rates.sized(
            labelling, pools, wanted, lambda: rates.sample(rows.first_rows, rows.files)
        )
        seconds = engine.WorkSeconds(run)
        labels = label(rows.read(), labelling, pools, seconds)
        yield Labelled(labels, cluster.most_cpus, seconds.total)


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
    """The stages of a pool in one of its processes."""

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
