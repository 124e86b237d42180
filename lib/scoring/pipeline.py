"""Images → label rows on Ray: the stages of labelling, shared out among pools of workers.

Importing this imports Ray, which takes seconds; jobs do so when their options have been checked.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lib.scoring import engine

# isort: split
# Only behind the engine, which sets up the environment for Ray Data.
import ray.data

from lib.scoring.labelling import IN_FLIGHT, Labelling, State, Worker
from lib.scoring.placement import Cluster, Placement, Pool
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Block, Rows

log = logging.getLogger("pools")


@dataclass(frozen=True)
class Labelled:
    """Label rows on a cluster, not computed yet.

    Attributes:
        rows: of labels, in any order; with a writer, how many of each block were written.
        work_seconds: gives the seconds by kind of work so far.
        new_lines: gives what workers have said since it was asked last.
    """

    rows: ray.data.Dataset
    work_seconds: Callable[[], dict[str, float]]
    new_lines: Callable[[], list[str]]


@contextmanager
def labelled(
    rows: Rows,
    labelling: Labelling,
    wanted: Placement,
    remedy: str,
    run: str = "",
    writer: RowWriter | None = None,
) -> Iterator[Labelled]:
    """Connect to a cluster or start one, share the work out among pools, and label; streaming.

    Args:
        rows: what the source of `labelling` takes.
        labelling: what is to be done.
        wanted: of the pools.
        remedy: what the user can do where the run stops.
        run: id of the run, for metrics.
        writer: for the label rows; None: they are passed on.

    Raises:
        UserError: the pools do not fit the cluster, or what stopped the run.
    """
    with engine.failures_in_one_line(remedy), engine.cluster() as resources:
        cluster = Cluster.of(resources, wanted.max_cluster, engine.machines())
        blocks = rows.blocks()
        pools = labelling.pools(wanted, cluster, len(blocks))
        for pool in pools:
            log.info("%s", pool)
        state = engine.RunState(run)
        labels = label(places_of(blocks), labelling, pools, state, rows, writer)
        yield Labelled(labels, state.total, state.new_lines)


def write(
    rows: Rows,
    labelling: Labelling,
    wanted: Placement,
    remedy: str,
    run: str,
    writer: RowWriter,
) -> dict[str, float]:
    """Label as `labelled` does, and write the rows; gives the seconds by kind of work."""
    with labelled(rows, labelling, wanted, remedy, run, writer) as labels:
        for _ in labels.rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            for line in labels.new_lines():
                log.info("%s", line)
        return labels.work_seconds()


def places_of(blocks: Sequence[Block]) -> ray.data.Dataset:
    """Where the rows of the blocks are; the workers read them, so that no others are needed for that."""
    places = [block._asdict() for block in blocks]
    return ray.data.from_items(places, override_num_blocks=len(places))


def label(
    rows: ray.data.Dataset,
    labelling: Labelling,
    pools: Sequence[Pool],
    state: State | None = None,
    source: Rows | None = None,
    writer: RowWriter | None = None,
) -> ray.data.Dataset:
    """Send rows through all pools; streaming, hence nothing is computed yet.

    Args:
        rows: what the source of `labelling` takes, or where the blocks of these rows are.
        labelling: what is to be done.
        pools: where, in the order in which an image passes them.
        state: of the run; None: nobody asks for it.
        source: reads the rows of each block; None: they are there.
        writer: for the label rows; None: they are passed on.

    Returns:
        The rows of `lib.scoring.schema`, in any order; with a writer, how many of each block it wrote.
    """
    for pool in pools:
        first, last = pool is pools[0], pool is pools[-1]
        # `map_batches` itself refuses whole blocks where GPUs are asked for; the rest is the same.
        rows = rows.map_batches_internal(
            Worker,
            fn_constructor_args=(
                labelling.stages(pool, last),
                state,
                source if first else None,
                writer if last else None,
                labelling.batch(pool),
            ),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=engine.pool(pool.least, pool.actors, IN_FLIGHT if pool.gpus else 1),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
        )
    return rows
