"""How images are labelled: the stages of each pool, and what a worker does with a block of images."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, Precision
from lib.scoring.placement import FACES, Cluster, Placement, Pool, place
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Block, Rows
from lib.scoring.schema import KEYS
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import BATCH, Chain, Stage

BATCH_BYTES = 64 << 20
"""Encoded images of a batch, where their sizes are known before they are read."""


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


class Worker:
    """The stages of a pool in one process.

    Args:
        stages: in order.
        report: called now and then with the seconds that each kind of work took.
        rows: reads the rows of a block, which then are descriptions of blocks; None: it gets the rows.
        writer: for the label rows of each block; None: they are passed on.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        report: Callable[[dict[str, float]], None],
        rows: Rows | None = None,
        writer: RowWriter | None = None,
    ) -> None:
        self._chain = Chain(stages, report)
        self._rows = rows
        self._writer = writer

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Send a block through the stages, batch by batch."""
        if self._rows is not None:
            (where,) = block.to_pylist()
            block = self._rows.read(Block(**where))
        rows = self._chain.stream(block, BATCH, BATCH_BYTES)
        if self._writer is None:
            yield from rows
        else:
            yield self._writer(rows)

    def finish(self) -> None:
        """Report the seconds that have not been reported."""
        self._chain.report()
