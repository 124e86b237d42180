"""How fast a worker of each pool is, on the images that are to be labelled, and how many that makes.

Importing this imports Ray, which takes seconds; jobs do so when their options have been checked.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import ray

from jobs.pipeline import BATCH, Labelling
from lib.placement import Pool, Size, balanced
from lib.stages.stage import Chain, Stage

log = logging.getLogger("pools")


def sized(
    labelling: Labelling,
    pools: list[Pool],
    sizes: Mapping[str, Size],
    images: Callable[[], pa.Table],
) -> list[Pool]:
    """Size pools on CPUs and on GPUs to each other, by what is measured, and say so.

    Args:
        labelling: what is to be done.
        pools: in the order in which an image passes them, as large as the cluster.
        sizes: what the user wants, by name of pool.
        images: gives some of the rows that the source of `labelling` takes, if they are needed.
    """
    told = all(sizes[pool.name].actors is not None for pool in pools)
    if any(pool.gpus for pool in pools) and not told:
        log.info("measuring a worker of each pool")
        rates = measure(labelling, pools, spread(images()))
        pools = balanced(pools, rates, sizes)
        log.info("; ".join(f"{name}: {r:.1f} images/s a worker" for name, r in rates.items()))
        faces, *models = pools
        found = faces.actors * rates[faces.name]
        for pool in models:
            log.info(
                "%s: %.1f workers of %s for each worker; at most they take %.0f images/s and get %.0f",
                pool.name, rates[pool.name] / rates[faces.name], faces.name,
                pool.actors * rates[pool.name], found,
            )  # fmt: skip
    for pool in pools:
        log.info("%s", described(pool))
    return pools


def spread(images: pa.Table) -> pa.Table:
    """A batch from all over: those that come first may all be without a face."""
    return images.take([len(images) * n // BATCH for n in range(min(BATCH, len(images)))])


def described(pool: Pool) -> str:
    """A pool in words."""
    number = f"{pool.actors}" if pool.least == pool.actors else f"{pool.least} to {pool.actors}"
    gpus = f" and {pool.gpus:g} GPUs" if pool.gpus else ""
    return f"pool {pool.name} ({', '.join(pool.stages)}): {number} x {pool.cpus:.2f} CPUs{gpus}"


@ray.remote
class _Worker:
    def run(self, stages: list[Stage], batch: pa.Table) -> tuple[pa.Table, float]:
        """What the stages make of a batch, and images a second."""
        chain = Chain(stages)
        chain(batch)  # the first batch traces the graphs
        started = time.perf_counter()
        result = chain(batch)
        return result, len(batch) / (time.perf_counter() - started)


def measure(labelling: Labelling, pools: Sequence[Pool], images: pa.Table) -> dict[str, float]:
    """Images a second of one worker of each pool, by the pool's name.

    Waits for machines that have the room; an autoscaler starts them.

    Args:
        labelling: what is to be done.
        pools: in the order in which an image passes them.
        images: a batch of what the source of `labelling` takes.
    """
    rates = {}
    batch = images
    for pool in pools:
        worker = _Worker.options(num_cpus=pool.cpus, num_gpus=pool.gpus).remote()  # type: ignore[attr-defined]
        stages = labelling.stages(pool, pool is pools[-1])
        batch, rates[pool.name] = ray.get(worker.run.remote(stages, batch))
        ray.kill(worker)
    return rates
