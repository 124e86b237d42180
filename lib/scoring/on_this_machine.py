"""Labels of images on this machine alone, by processes of its own.

A cluster of one machine would give the same rows later: Ray takes as long to start as two cores take for
some hundred photographs.
"""

import logging
import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pyarrow as pa

from lib.common.gpus import usable_gpus, visible_devices
from lib.scoring.labelling import IN_FLIGHT, Labelling, OneProcess, Worker
from lib.scoring.placement import FACES, Cluster, Placement, Pool, bytes_of_worker
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Rows
from lib.scoring.worker_processes import NO_DEVICE, ROWS_UNTIL_GPUS, Report, Work, WorkerProcesses

log = logging.getLogger("workers")

FEW_IMAGES = 256
"""So many are labelled in the time that further processes take to start."""


def suits(wanted: Placement) -> bool:
    """Whether images are labelled here: nobody names a cluster or asks for pools."""
    return not os.environ.get("RAY_ADDRESS") and wanted == Placement()


def are_few(images: int, labelling: Labelling) -> bool:
    """Whether these images are labelled here sooner than workers of a cluster, or a GPU, can start."""
    return images <= FEW_IMAGES and labelling.bundle.inference is not None


def label_here(
    rows: Rows,
    labelling: Labelling,
    report: Report = lambda seconds: None,
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

    Raises:
        UserError: what stopped the work.
    """
    blocks = rows.blocks()
    gpus = _gpus(rows.count, labelling)
    pool = (
        _on_gpus(labelling, len(blocks), gpus)
        if gpus
        else _on_cpus(labelling, rows.count, len(blocks))
    )
    work = _work(labelling, pool, rows, writer)
    if pool.actors == 1 and not gpus:
        worker = Worker(work.stages, OneProcess(report), rows, writer)
        for block in blocks:
            yield from worker(block.as_table())
        worker.finish()
        return
    devices = islice(cycle(visible_devices(gpus) or [NO_DEVICE]), pool.actors)
    starts = [(work, device) for device in devices]
    if gpus and (until_then := _until_gpus_have_started(labelling, rows.count, pool)):
        work = replace(_work(labelling, until_then, rows, writer), until_gpus=True)
        starts += [(work, NO_DEVICE)] * until_then.actors
    with closing(WorkerProcesses(starts)) as processes:
        yield from processes.label(deque(blocks), report)


def _work(labelling: Labelling, pool: Pool, rows: Rows, writer: RowWriter | None) -> Work:
    threads = IN_FLIGHT if pool.gpus else 1
    return Work(labelling.stages(pool, last=True), rows, writer, labelling.batch(pool), threads)


def _gpus(images: int, labelling: Labelling) -> int:
    """GPUs to use; says which, or why not those that are there.

    A GPU takes seconds to start, which do not pay for few images, unless its model is one for GPUs. ONNX
    graphs are computed on CPUs.
    """
    if not labelling.bundle.networks:
        return 0
    gpus, problem = usable_gpus()
    if problem is not None:
        log.warning("there is a GPU, but %s: labelling on CPUs", problem)
    return 0 if are_few(images, labelling) else gpus


def _on_gpus(labelling: Labelling, blocks: int, gpus: int) -> Pool:
    cores = len(os.sched_getaffinity(0))
    machine = Cluster(cores, gpus, memory=_memory(), cpus_by_gpu=cores / gpus)
    (pool,) = labelling.pools(Placement("fused"), machine, blocks)
    log.info("labelling on %d GPUs: %d workers of %d threads", gpus, pool.actors, pool.threads)
    return pool


def _on_cpus(labelling: Labelling, images: int, blocks: int) -> Pool:
    cores = len(os.sched_getaffinity(0))
    workers = 1 if images <= FEW_IMAGES else min(max(1, _fitting(labelling, _memory())), blocks)
    log.info("labelling on %d CPUs", cores)
    return Pool(FACES, (FACES, *labelling.bundle.tasks), workers, cpus=cores / workers)


def _until_gpus_have_started(labelling: Labelling, images: int, on_gpus: Pool) -> Pool | None:
    """Processes on CPUs that label until the GPUs have started, which takes over ten seconds.

    None where they would start no sooner, where half precision was asked for, which CPUs do not compute
    in, and where those on GPUs leave no memory.
    """
    if labelling.bundle.inference is None or labelling.precision not in ("auto", "float32"):
        return None
    threads = on_gpus.actors * on_gpus.threads
    left = _memory() - threads * labelling.detector.entry.worker_gib * 2**30
    parts = math.ceil(images / ROWS_UNTIL_GPUS)
    workers = min(_fitting(labelling, left), parts)
    if workers < 1:
        return None
    log.info("until the GPUs have started: on %d CPUs", workers)
    return Pool(FACES, (FACES, *labelling.bundle.tasks), workers, cpus=1.0)


def _fitting(labelling: Labelling, memory: float) -> int:
    """Cores that can have a process each in some memory; may be none."""
    cores = len(os.sched_getaffinity(0))
    of_each = bytes_of_worker(labelling.detector.entry.worker_gib, labelling.bundle.weight_bytes)
    return min(cores, int(memory / of_each))


def _memory() -> float:
    """Bytes of memory for this process and its children: of the machine, or of its container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group of version 2, or one without a limit
        return machine
