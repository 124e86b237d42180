"""Labels of images on this machine alone, by processes of its own.

A cluster of one machine would give the same rows later: Ray takes as long to start as two cores take for
some hundred photographs.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from typing import Any

import pyarrow as pa

from lib.common.errors import UserError
from lib.scoring.labelling import Labelling, Worker
from lib.scoring.placement import FACES, Cluster, Placement, Pool, fitting
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Block, Rows
from lib.scoring.stages.stage import Stage

log = logging.getLogger("workers")

FEW_IMAGES = 256
"""So many are labelled in the time that further processes take to start."""
MOST_DEATHS = 2
"""Workers that may end at one image alone: with others beside it memory may have been short."""

Report = Callable[[dict[str, float]], None]


def suits(images: int, wanted: Placement) -> bool:
    """Whether images are labelled here: nobody names a cluster or asks for pools, and no GPU is idle."""
    if os.environ.get("RAY_ADDRESS") or wanted != Placement():
        return False
    return images <= FEW_IMAGES or not any(Path("/dev").glob("nvidia[0-9]*"))


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
    cores = len(os.sched_getaffinity(0))
    machine = Cluster(cores, 0, memory=_memory())
    workers = fitting(machine, labelling.detector.entry.worker_gib, labelling.bundle.weight_bytes)
    workers = 1 if rows.count <= FEW_IMAGES else min(workers, cores, len(blocks))
    tasks = tuple(labelling.bundle.networks)
    pool = Pool(FACES, (FACES, *tasks), workers, cpus=cores / workers)
    stages = labelling.stages(pool, last=True)
    if workers == 1:
        worker = Worker(stages, report, rows, writer)
        for block in blocks:
            yield from worker(block.as_table())
        worker.finish()
        return
    with closing(_Processes(_Work(stages, rows, writer), workers)) as processes:
        yield from processes.label(deque(blocks), report)


@dataclass(frozen=True)
class _Work:
    """What a process does; travels to it."""

    stages: list[Stage]
    rows: Rows
    writer: RowWriter | None


@dataclass(frozen=True)
class _Result:
    """What a process gives back for a block: rows and seconds by kind of work, or why it cannot."""

    tables: list[pa.Table]
    seconds: dict[str, float]
    error: str | None = None


class _Processes:
    """Processes that label blocks; one that ends is replaced, and its images are labelled again."""

    def __init__(self, work: _Work, count: int) -> None:
        self._work = work
        self._context = get_context("spawn")
        self._running: dict[Connection, SpawnProcess] = {}
        for _ in range(count):
            self._start()

    def label(self, waiting: deque[Block], report: Report) -> Iterator[pa.Table]:
        """Label all blocks, in any order; see `label_here`."""
        busy: dict[Connection, Block] = {}
        deaths = Counter[Block]()
        while waiting or busy:
            for idle in self._running.keys() - busy.keys():
                if waiting:
                    busy[idle] = waiting.popleft()
                    with suppress(BrokenPipeError):  # it has ended; `wait` tells
                        idle.send(busy[idle])
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                block = busy.pop(ready)
                try:
                    result: _Result = ready.recv()
                except (EOFError, OSError):
                    deaths[block] += 1
                    exit_code = self._replace(ready)
                    waiting.extendleft(_after_death(block, deaths[block], exit_code))
                    continue
                if result.error is not None:
                    raise UserError(result.error)
                report(result.seconds)
                yield from result.tables

    def close(self) -> None:
        """End all processes, whatever they do."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.join()

    def _replace(self, ended: Connection) -> int | None:
        """Start another process for one that has ended; gives the exit code of that."""
        process = self._running.pop(ended)
        process.join()
        self._start()
        return process.exitcode

    def _start(self) -> None:
        ours, its = self._context.Pipe()
        process = self._context.Process(target=_label_blocks, args=(self._work, its), daemon=True)
        process.start()
        its.close()
        self._running[ours] = process


def _after_death(block: Block, deaths: int, exit_code: int | None) -> list[Block]:
    """What to do with a block at which a worker ended: find the image, which then gets its row.

    Raises:
        UserError: workers end without reading an image, too.
    """
    log.warning("a worker process ended (exit code %s); another one goes on", exit_code)
    if block.fault is not None:
        raise UserError(
            f"the worker processes end by themselves (exit code {exit_code}): is there enough memory?"
        )
    if block.rows > 1:
        return block.singles()
    if deaths < MOST_DEATHS:
        return [block]
    return [
        block._replace(fault=f"decode_error: it ended the process that read it, {deaths} times")
    ]


def _label_blocks(work: _Work, connection: Connection) -> None:
    """The life of a process."""
    signal(SIGINT, SIG_IGN)  # who started it ends it
    Thread(target=_end_with_parent, daemon=True).start()
    seconds: dict[str, float] = {}

    def keep(more: dict[str, float]) -> None:
        seconds.update({name: seconds.get(name, 0.0) + value for name, value in more.items()})

    try:
        worker = Worker(work.stages, keep, work.rows, work.writer)
        while True:
            block: Block = connection.recv()
            seconds.clear()
            tables = list(worker(block.as_table()))
            worker.finish()
            connection.send(_Result(tables, dict(seconds)))
    except EOFError:
        return
    except UserError as error:
        connection.send(_Result([], {}, str(error)))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        connection.send(_Result([], {}, f"the run stopped: {type(error).__name__}: {reason}"))


def _end_with_parent() -> None:
    """A process whose parent was killed must not write beside the next start of the run."""
    parent: Any = parent_process()
    wait([parent.sentinel])
    os._exit(1)


def _memory() -> float:
    """Bytes of memory for this process and its children: of the machine, or of its container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group of version 2, or one without a limit
        return machine
