"""Labels of images on this machine alone, by processes of its own.

A cluster of one machine would give the same rows later: Ray takes as long to start as two cores take for
some hundred photographs.
"""

import logging
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

import pyarrow as pa

from lib.common.errors import UserError
from lib.common.gpus import usable_gpus, visible_devices
from lib.common.processes import begin_process
from lib.scoring.labelling import IN_FLIGHT, Labelling, OneProcess, Worker
from lib.scoring.placement import FACES, Cluster, Placement, Pool, fitting
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import MOST_DEATHS, Block, Rows, fatal_image
from lib.scoring.stages.stage import BATCH, Stage

log = logging.getLogger("workers")

FEW_IMAGES = 256
"""So many are labelled in the time that further processes take to start."""
NO_DEVICE = "-1"
"""As the value of `CUDA_VISIBLE_DEVICES`: a process without a GPU."""

Report = Callable[[dict[str, float]], None]


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
    pool = _pool(labelling, rows.count, len(blocks), gpus)
    stages = labelling.stages(pool, last=True)
    if pool.actors == 1 and not gpus:
        worker = Worker(stages, OneProcess(report), rows, writer)
        for block in blocks:
            yield from worker(block.as_table())
        worker.finish()
        return
    devices = list(islice(cycle(visible_devices(gpus) or [NO_DEVICE]), pool.actors))
    work = _Work(stages, rows, writer, labelling.batch(pool) if gpus else BATCH)
    with closing(_Processes(work, devices)) as processes:
        yield from processes.label(deque(blocks), report)


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


def _pool(labelling: Labelling, images: int, blocks: int, gpus: int) -> Pool:
    """The processes, as a pool."""
    cores = len(os.sched_getaffinity(0))
    if gpus:
        machine = Cluster(cores, gpus, memory=_memory(), cpus_by_gpu=cores / gpus)
        (pool,) = labelling.pools(Placement("fused"), machine, blocks)
        log.info("labelling on %d GPUs: %d workers of %d threads", gpus, pool.actors, pool.threads)
        return pool
    machine = Cluster(cores, 0, memory=_memory())
    workers = fitting(machine, labelling.detector.entry.worker_gib, labelling.bundle.weight_bytes)
    workers = 1 if images <= FEW_IMAGES else min(workers, cores, blocks)
    tasks = labelling.bundle.tasks
    log.info("labelling on %d CPUs", cores)
    return Pool(FACES, (FACES, *tasks), workers, cpus=cores / workers)


@dataclass(frozen=True)
class _Work:
    """What a process does; travels to it."""

    stages: list[Stage]
    rows: Rows
    writer: RowWriter | None
    batch: int


@dataclass(frozen=True)
class _Result:
    """What a process gives back for a block: rows and seconds by kind of work, or why it cannot."""

    tables: list[pa.Table]
    seconds: dict[str, float]
    lines: list[str]
    error: str | None = None


class _Process(NamedTuple):
    """A process, the device that it computes on, and the ends of its connections, one for each thread."""

    process: SpawnProcess
    device: str
    connections: tuple[Connection, ...]


class _Processes:
    """Processes that label blocks; one that ends is replaced, and its images are labelled again.

    One on a GPU has several blocks in work, each in a thread with a connection of its own. One that
    replaces another has a single one, so that the image is found that ended it.
    """

    def __init__(self, work: _Work, devices: Sequence[str]) -> None:
        self._work = work
        self._context = get_context("spawn")
        self._running: dict[Connection, _Process] = {}
        self._said: set[str] = set()
        for device in devices:
            self._start(device, 1 if device == NO_DEVICE else IN_FLIGHT)

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
                if ready not in busy:  # its process has ended, as another connection has shown
                    continue
                try:
                    result: _Result = ready.recv()
                except (EOFError, OSError):
                    exit_code, connections = self._replace(ready)
                    for connection in busy.keys() & set(connections):
                        block = busy.pop(connection)
                        deaths[block] += 1
                        waiting.extendleft(_after_death(block, deaths[block], exit_code))
                    continue
                del busy[ready]
                if result.error is not None:
                    raise UserError(result.error)
                report(result.seconds)
                self._log(result.lines)
                yield from result.tables

    def close(self) -> None:
        """End all processes, whatever they do."""
        for running in self._running.values():
            running.process.kill()
        for running in self._running.values():
            running.process.join()

    def _replace(self, ended: Connection) -> tuple[int | None, tuple[Connection, ...]]:
        """Start another process for one that has ended; gives the exit code and connections of that."""
        process, device, connections = self._running[ended]
        for connection in connections:
            del self._running[connection]
        process.join()
        self._start(device, 1)
        return process.exitcode, connections

    def _start(self, device: str, threads: int) -> None:
        pipes = [self._context.Pipe() for _ in range(threads)]
        process = self._context.Process(
            target=_label_blocks,
            args=(self._work, device, [its for _, its in pipes]),
            daemon=True,
        )
        process.start()
        for _, its in pipes:
            its.close()
        ours = tuple(ours for ours, _ in pipes)
        self._running |= dict.fromkeys(ours, _Process(process, device, ours))

    def _log(self, lines: Sequence[str]) -> None:
        for line in lines:
            if line not in self._said:
                log.info("%s", line)
        self._said.update(lines)


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
    return [block._replace(fault=fatal_image(deaths))]


def _label_blocks(work: _Work, device: str, connections: Sequence[Connection]) -> None:
    """The life of a process."""
    begin_process()
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    kept = _Kept()
    try:
        worker = Worker(work.stages, kept, work.rows, work.writer, work.batch)
    except Exception as error:
        for connection in connections:
            connection.send(_Result([], {}, [], _in_one_line(error)))
        return
    threads = [
        Thread(target=_serve, args=(worker, kept, connection)) for connection in connections[1:]
    ]
    for thread in threads:
        thread.start()
    _serve(worker, kept, connections[0])
    for thread in threads:
        thread.join()


def _serve(worker: Worker, kept: "_Kept", connection: Connection) -> None:
    """Label one block after the other, until the connection ends."""
    try:
        while True:
            block: Block = connection.recv()
            tables = list(worker(block.as_table()))
            worker.finish()
            connection.send(_Result(tables, *kept.take()))
    except EOFError:
        return
    except Exception as error:
        connection.send(_Result([], {}, [], _in_one_line(error)))


class _Kept(OneProcess):
    """Seconds and lines that go back with the next result; threads share it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lines: list[str] = []

    def add(self, seconds: dict[str, float]) -> None:
        with self._lock:
            for name, value in seconds.items():
                self._seconds[name] += value

    def say(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)

    def take(self) -> tuple[dict[str, float], list[str]]:
        with self._lock:
            taken = dict(self._seconds), self._lines
            self._seconds, self._lines = defaultdict(float), []
            return taken


def _in_one_line(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    reason = str(error).splitlines()[0] if str(error) else ""
    return f"the run stopped: {type(error).__name__}: {reason}"


def _memory() -> float:
    """Bytes of memory for this process and its children: of the machine, or of its container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control group of version 2, or one without a limit
        return machine
