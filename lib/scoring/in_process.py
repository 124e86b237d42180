"""Labels of a few images in this process: starting a cluster would take longer."""

import os
from collections.abc import Callable, Iterator

import pyarrow as pa

from lib.scoring.labelling import Labelling, Worker
from lib.scoring.placement import FACES, Placement, Pool
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Rows

MOST_IMAGES = 256
"""Two cores label so many photographs in the time that Ray takes to start."""


def suits(images: int, wanted: Placement) -> bool:
    """Whether so few images are labelled here: where nobody asked for a cluster or for pools."""
    return images <= MOST_IMAGES and wanted == Placement() and "RAY_ADDRESS" not in os.environ


def label_here(
    rows: Rows,
    labelling: Labelling,
    report: Callable[[dict[str, float]], None] = lambda seconds: None,
    writer: RowWriter | None = None,
) -> Iterator[pa.Table]:
    """Label images, block by block.

    Args:
        rows: what the source of `labelling` takes.
        labelling: what is to be done.
        report: called now and then with the seconds that each kind of work took.
        writer: for the label rows; None: they are passed on.

    Yields:
        Label rows; with a writer, how many of each block were written.
    """
    tasks = tuple(labelling.bundle.networks)
    everything = Pool(FACES, (FACES, *tasks), 1, cpus=len(os.sched_getaffinity(0)))
    worker = Worker(labelling.stages(everything, last=True), report, writer=writer)
    for block in rows.blocks():
        yield from worker(rows.read(block))
    worker.finish()
