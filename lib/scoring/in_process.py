"""Labels of a few images in the job's own process: starting a cluster would take longer."""

import os
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from lib.scoring.labelling import Labelling, Worker
from lib.scoring.placement import FACES, Placement, Pool
from lib.scoring.row_writer import RowWriter
from lib.scoring.stages.stage import BATCH

MOST_IMAGES = 256
"""Two cores label so many photographs in the time that Ray takes to start."""


def suits(images: int, wanted: Placement) -> bool:
    """Whether so few images are labelled here: where nobody asked for a cluster or for pools."""
    return images <= MOST_IMAGES and wanted == Placement() and "RAY_ADDRESS" not in os.environ


def label_here(
    images: Iterable[pa.Table], labelling: Labelling, writer: RowWriter
) -> dict[str, float]:
    """Label images and write their rows.

    Args:
        images: tables of what the source of `labelling` takes.
        labelling: what is to be done.
        writer: for the rows.

    Returns:
        Seconds by kind of work.
    """
    tasks = tuple(labelling.bundle.networks)
    everything = Pool(FACES, (FACES, *tasks), 1, cpus=len(os.sched_getaffinity(0)))
    seconds: Counter[str] = Counter()
    worker = Worker(labelling.stages(everything, last=True), seconds.update, writer=writer)
    for table in images:
        for start in range(0, len(table), BATCH):
            for _ in worker(table.slice(start, BATCH)):
                pass
    worker.finish()
    return dict(seconds)
