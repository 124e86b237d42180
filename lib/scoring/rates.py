"""Measures a worker of each pool on some of the images, and sizes the pools by that.

Importing this imports Ray, which takes seconds; jobs import it after they have checked their options.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import pyarrow as pa
import ray

from lib.common.errors import UserError
from lib.scoring.placement import Placement, Pool, balanced
from lib.scoring.stages.face_arrays import face_counts
from lib.scoring.stages.stage import BATCH, Chain, Stage

log = logging.getLogger("pools")

FEWEST_FACES = 4
LOG_EVERY_SECONDS, GIVE_UP_SECONDS = 30, 1800


class Work(Protocol):
    """What is to be done, as the stages of each pool."""

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        """What the workers of a pool do, in order."""


def sized(
    labelling: Work,
    pools: list[Pool],
    wanted: Placement,
    images: Callable[[], pa.Table],
) -> list[Pool]:
    """Size pools on CPUs and on GPUs to each other, by what is measured, and say so.

    Args:
        labelling: what is to be done.
        pools: in the order in which an image passes them, as large as the cluster.
        wanted: what the user wants of them.
        images: gives some of the rows that the source of `labelling` takes, if they are needed.
    """
    fixed = all(wanted.size_of(pool).actors is not None for pool in pools)
    if any(pool.gpus for pool in pools) and not fixed:
        log.info("measuring a worker of each pool")
        if rates := measure(labelling, pools, images()):
            pools = balanced(pools, rates, wanted)
            _log_rates(pools, rates)
        else:
            log.info("too few faces in %d images: the pools stay as large as the cluster", BATCH)
    for pool in pools:
        log.info("%s", described(pool))
    return pools


def _log_rates(pools: Sequence[Pool], rates: Mapping[str, float]) -> None:
    log.info("; ".join(f"{name}: {r:.1f} images/s a worker" for name, r in rates.items()))
    faces, *models = pools
    found = faces.actors * rates[faces.name]
    for pool in models:
        log.info(
            "%s: %.1f workers of %s for each worker; at most they take %.0f images/s and get %.0f",
            pool.name, rates[pool.name] / rates[faces.name], faces.name,
            pool.actors * rates[pool.name], found,
        )  # fmt: skip


def described(pool: Pool) -> str:
    """A pool in words."""
    number = f"{pool.actors}" if pool.least == pool.actors else f"{pool.least} to {pool.actors}"
    gpus = f" and {pool.gpus:g} GPUs" if pool.gpus else ""
    return f"pool {pool.name} ({', '.join(pool.stages)}): {number} x {pool.cpus:.2f} CPUs{gpus}"


@ray.remote
class _Worker:
    def run(self, stages: list[Stage], batch: pa.Table) -> tuple[pa.Table, float]:
        """Give the result of the stages for a batch, and images a second."""
        chain = Chain(stages)
        chain(batch)  # the first batch traces the graphs
        started = time.perf_counter()
        result = chain(batch)
        return result, len(batch) / (time.perf_counter() - started)


def measure(labelling: Work, pools: Sequence[Pool], images: pa.Table) -> dict[str, float]:
    """Images a second of one worker of each pool, by the pool's name.

    Waits for machines that have the room; an autoscaler starts them.

    Args:
        labelling: what is to be done.
        pools: in the order in which an image passes them.
        images: a batch of what the source of `labelling` takes.

    Returns:
        Nothing where there are too few faces in them to measure a model by.

    Raises:
        UserError: such a machine has not come.
    """
    rates = {}
    batch = images
    for pool in pools:
        # A machine that is lost meanwhile is replaced, as later in the pools.
        worker = _Worker.options(  # type: ignore[attr-defined]
            num_cpus=pool.cpus, num_gpus=pool.gpus, max_restarts=-1, max_task_retries=-1
        ).remote()
        stages = labelling.stages(pool, pool is pools[-1])
        batch, rates[pool.name] = _waited_for(worker.run.remote(stages, batch), pool)
        ray.kill(worker)
        if pool is pools[0] and face_counts(batch, "crops").sum() < FEWEST_FACES:
            return {}
    return rates


def _waited_for(result: ray.ObjectRef, pool: Pool) -> tuple[pa.Table, float]:
    """Wait for a result, however long its machine takes to start, and log what is waited for."""
    for seconds in range(0, GIVE_UP_SECONDS, LOG_EVERY_SECONDS):
        if seconds:
            log.info(
                "waiting for a machine with %.2f CPUs and %g GPUs for the pool %s, %d s",
                pool.cpus, pool.gpus, pool.name, seconds,
            )  # fmt: skip
        if ray.wait([result], timeout=LOG_EVERY_SECONDS)[0]:
            return ray.get(result)
    raise UserError(
        f"no machine with {pool.cpus:.2f} CPUs and {pool.gpus:g} GPUs for the pool {pool.name} in "
        f"{GIVE_UP_SECONDS // 60} minutes; look at the quota, or change --max-cluster"
    )
