"""How images are labelled: the stages of each pool, and what a worker does with a block of images."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import pyarrow as pa

from lib.common.errors import UserError
from lib.common.processes import THEY_END
from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, PrecisionChoice
from lib.scoring.placement import FACES, Cluster, Placement, Pool, place
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import MOST_DEATHS, Block, Rows, fatal_image, with_fault
from lib.scoring.schema import KEYS
from lib.scoring.stages.detect import Detect, DetectInBatches
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import BATCH, Chain, Stage
from lib.tasks.under_age import ADULT_AGE

log = logging.getLogger("workers")

BATCH_BYTES, GPU_BATCH_BYTES = 64 << 20, 256 << 20
"""Encoded images of a batch, where their sizes are known before they are read."""
GPU_BATCH, GPU_BATCH_OF_CROPS = 64, 512
"""Images that pass the stages together on a GPU: photographs, of which a decoded one takes megabytes, and
face crops."""
IN_FLIGHT = 3
"""Blocks that a worker on a GPU has in work: one is decoded, one is computed, one waits between."""


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
        threshold: age in years, of the probability to be younger.
        mirror: give the mean over each face and its mirror image.
    """

    source: Stage
    detector: DetectorSpec
    limits: Limits
    bundle: Bundle
    age_distribution: bool
    carry: tuple[str, ...] = ()
    precision: PrecisionChoice = "float32"
    keys: tuple[str, ...] = KEYS
    finish: tuple[Stage, ...] = ()
    threshold: int = ADULT_AGE
    mirror: bool = False

    def pools(self, wanted: Placement, cluster: Cluster, blocks: float = math.inf) -> list[Pool]:
        """The pools for this work on a cluster: see `lib.scoring.placement.place`."""
        if not self.bundle.networks:
            cluster = cluster.without_gpus()
        return place(
            wanted,
            cluster,
            self.bundle.tasks,
            self.bundle.is_one_network,
            self.bundle.weight_bytes,
            blocks,
            self.detector.entry.worker_gib,
        )

    @property
    def _takes_crops(self) -> bool:
        return self.detector.entry.module is None

    def batch(self, pool: Pool) -> int:
        """Images that pass the stages of a worker of this pool together."""
        if not pool.gpus:
            return BATCH
        return GPU_BATCH_OF_CROPS if self._takes_crops or FACES not in pool.stages else GPU_BATCH

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        """What the workers of a pool do, in order; those of the last one make the label rows."""
        chain: list[Stage] = []
        on_gpu = pool.gpus > 0
        if FACES in pool.stages:
            source = self.source
            if isinstance(source, Fetch):
                source = source.for_one_of(pool.actors, pool.threads)
            chain.append(source)
            detect = DetectInBatches if on_gpu else Detect
            chain.append(detect(self.detector, self.bundle.crop, self.limits, pool.threads))
        if tasks := tuple(stage for stage in pool.stages if stage != FACES):
            chain.append(
                Predict(self.bundle, tasks, pool.threads, self.precision, pool.gpus, self.mirror)
            )
        if last:
            chain.append(
                Label(self.bundle, self.age_distribution, self.carry, self.keys, self.threshold)
            )
            chain.extend(self.finish)
        return chain


class State(Protocol):
    """What the workers of a run have in common."""

    def add(self, seconds: dict[str, float]) -> None:
        """Seconds that each kind of work took since the last call."""

    def say(self, line: str) -> None:
        """A line for the log."""

    def begun(self, block: Block) -> int:
        """A worker begins a block; gives how often one has, and has not come to its end."""

    def done(self, block: Block) -> None:
        """It has come to its end."""


class OneProcess(State):
    """That of a run whose only worker ends with it.

    Args:
        report: called with the seconds.
    """

    def __init__(self, report: Callable[[dict[str, float]], None] = lambda seconds: None) -> None:
        self._report = report

    def add(self, seconds: dict[str, float]) -> None:
        """See `State`."""
        self._report(seconds)

    def say(self, line: str) -> None:
        """See `State`."""
        log.info("%s", line)

    def begun(self, block: Block) -> int:
        """It has not ended at any."""
        return 0

    def done(self, block: Block) -> None:
        """Nobody asks."""


class Worker:
    """The stages of a pool in one process.

    Args:
        stages: in order.
        state: of the run.
        rows: reads the rows of a block, which then are descriptions of blocks; None: it gets the rows.
        writer: for the label rows of each block; None: they are passed on.
        batch: images that pass the stages together.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        state: State | None = None,
        rows: Rows | None = None,
        writer: RowWriter | None = None,
        batch: int = BATCH,
    ) -> None:
        self._state = OneProcess() if state is None else state
        self._chain = Chain(stages, self._state.add, self._state.say)
        self._alone = Lock()
        self._batch = batch
        self._bytes = BATCH_BYTES if batch <= BATCH else GPU_BATCH_BYTES
        self._rows = rows
        self._writer = writer

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Send a block through the stages, batch by batch; threads may send others beside it."""
        if self._rows is None:
            rows = self._label(block)
        else:
            (where,) = block.to_pylist()
            rows = self._label_block(self._rows, Block(**where))
        if self._writer is None:
            yield from rows
        else:
            yield self._writer(rows)

    def _label_block(self, rows: Rows, block: Block) -> Iterator[pa.Table]:
        """Label the rows of a block; where workers have ended at it, image by image.

        An image at which workers end even then gets a row that says so.

        Raises:
            UserError: workers end without reading an image, too.
        """
        table = rows.read(block)
        if self._state.begun(block) < MOST_DEATHS:
            yield from self._label(table)
        else:
            for row, single in enumerate(block.singles()):
                yield from self._label_alone(table.slice(row, 1), single)
        self._state.done(block)

    def _label_alone(self, image: pa.Table, block: Block) -> list[pa.Table]:
        # One at a time: of two that are begun, nobody could tell at which one the worker has ended.
        with self._alone:
            deaths = self._state.begun(block)
            if deaths > MOST_DEATHS:  # the last one did not read it any more
                raise UserError(THEY_END)
            if deaths == MOST_DEATHS:
                image = with_fault(image, fatal_image(deaths))
            labelled = list(self._label(image))
            self._state.done(block)
        return labelled

    def _label(self, rows: pa.Table) -> Iterator[pa.Table]:
        return self._chain.stream(rows, self._batch, self._bytes)

    def finish(self) -> None:
        """Report the seconds that have not been reported."""
        self._chain.report()
