"""Processes of this machine that label blocks of images, and what is done when one of them ends."""

import logging
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Lock, Thread
from typing import NamedTuple

import pyarrow as pa

from lib.common.errors import UserError
from lib.common.processes import begin_process
from lib.scoring.labelling import OneProcess, Worker
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import MOST_DEATHS, Block, Rows, fatal_image
from lib.scoring.stages.stage import BATCH, Stage

log = logging.getLogger("workers")

NO_DEVICE = "-1"
"""As the value of `CUDA_VISIBLE_DEVICES`: a process without a GPU."""
ROWS_UNTIL_GPUS = 32
"""Of a block for a process on CPUs while GPUs start: a core labels so many photographs in a second."""
LOWER_PRIORITY = 10
"""Of these processes, as `nice`: those on GPUs are to start soon."""

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Work:
    """What a process does; travels to it.

    Attributes:
        stages: in order.
        rows: reads the rows of a block.
        writer: for the label rows; None: they are passed on.
        batch: images that pass the stages together.
        threads: blocks that it has in work, each in a thread with a connection of its own.
        until_gpus: it only labels until a GPU has given its first rows.
    """

    stages: list[Stage]
    rows: Rows
    writer: RowWriter | None
    batch: int = BATCH
    threads: int = 1
    until_gpus: bool = False


@dataclass(frozen=True)
class _Result:
    """What a process says when it has started, and gives back for a block.

    Attributes:
        tables: rows.
        seconds: by kind of work.
        lines: for the log.
        error: why it cannot go on.
    """

    tables: list[pa.Table]
    seconds: dict[str, float]
    lines: list[str]
    error: str | None = None


class _Process(NamedTuple):
    """A process, its work and device, and the ends of its connections, one for each thread."""

    process: SpawnProcess
    work: Work
    device: str
    connections: tuple[Connection, ...]


class WorkerProcesses:
    """Processes that label blocks; one that ends is replaced, and its images are labelled again.

    One that replaces another has a single block in work, so that the image is found that ended it. Those
    that only label until a GPU has started are not replaced.

    Args:
        starts: the work and the device of each.
    """

    def __init__(self, starts: Sequence[tuple[Work, str]]) -> None:
        self._context = get_context("spawn")
        self._running: dict[Connection, _Process] = {}
        self._starting: set[Connection] = set()
        self._deaths_at_the_start = 0
        self._most_deaths_at_the_start = len(starts)
        self._gpus_are_there = False
        self._said: set[str] = set()
        for work, device in starts:
            self._start(work, device, work.threads)

    def label(self, waiting: deque[Block], report: Report) -> Iterator[pa.Table]:
        """Label all blocks, in any order; see `label_here`."""
        busy: dict[Connection, Block] = {}
        deaths = Counter[Block]()
        while waiting or busy:
            for idle in self._running.keys() - self._starting - busy.keys():
                if waiting:
                    busy[idle] = self._take(idle, waiting)
                    with suppress(BrokenPipeError):  # it has ended; `wait` tells
                        idle.send(busy[idle])
            for ready in wait([*self._starting, *busy]):
                assert isinstance(ready, Connection)
                if ready not in self._running:  # its process has ended, as another one has shown
                    continue
                try:
                    result: _Result = ready.recv()
                except (EOFError, OSError):
                    exit_code, connections = self._replace(ready)
                    for connection in busy.keys() & set(connections):
                        block = busy.pop(connection)
                        deaths[block] += 1
                        again = _after_death(block, deaths[block], exit_code)
                        # In their order: the first one replaces the file that the block may have left.
                        waiting.extendleft(reversed(again))
                    continue
                if result.error is not None:
                    raise UserError(result.error)
                report(result.seconds)
                self._log(result.lines)
                if ready in self._starting:
                    self._starting.remove(ready)
                    self._deaths_at_the_start = 0
                    continue
                del busy[ready]
                yield from result.tables
                if not self._running[ready].work.until_gpus:
                    self._gpus_are_there = True
            if self._gpus_are_there:
                self._end_those_until_gpus(busy)

    def close(self) -> None:
        """End all processes, whatever they do."""
        for running in self._running.values():
            running.process.kill()
        for running in self._running.values():
            running.process.join()

    def _take(self, idle: Connection, waiting: deque[Block]) -> Block:
        """The next block for a process; the rest of it, where that gets only a part, goes on waiting."""
        block = waiting.popleft()
        if self._running[idle].work.until_gpus and block.rows > ROWS_UNTIL_GPUS:
            block, rest = block.split(ROWS_UNTIL_GPUS)
            waiting.appendleft(rest)
        return block

    def _end_those_until_gpus(self, busy: Collection[Connection]) -> None:
        for connection, running in list(self._running.items()):
            if running.work.until_gpus and connection not in busy:
                self._forget(running)
                running.process.kill()
                running.process.join()

    def _replace(self, ended: Connection) -> tuple[int | None, tuple[Connection, ...]]:
        """Start another process for one that has ended; gives the exit code and connections of that.

        Raises:
            UserError: as many processes as there are have ended, and none has started.
        """
        running = self._running[ended]
        process, work, device, connections = running
        process.join()
        had_started = not self._starting.issuperset(connections)
        self._forget(running)
        if not work.until_gpus:
            self._deaths_at_the_start += not had_started
            if self._deaths_at_the_start > self._most_deaths_at_the_start:
                raise UserError(_why_processes_end(process.exitcode))
            self._start(work, device, 1)
        log.warning("a worker process ended (exit code %s); others go on", process.exitcode)
        return process.exitcode, connections

    def _start(self, work: Work, device: str, threads: int) -> None:
        pipes = [self._context.Pipe() for _ in range(threads)]
        process = self._context.Process(
            target=_label_blocks, args=(work, device, [its for _, its in pipes]), daemon=True
        )
        process.start()
        if work.until_gpus:
            assert process.pid is not None
            with suppress(ProcessLookupError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, process.pid, LOWER_PRIORITY)
        for _, its in pipes:
            its.close()
        ours = tuple(ours for ours, _ in pipes)
        self._running |= dict.fromkeys(ours, _Process(process, work, device, ours))
        self._starting.update(ours)

    def _forget(self, running: _Process) -> None:
        for connection in running.connections:
            del self._running[connection]
            self._starting.discard(connection)

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
    if block.fault is not None:
        raise UserError(_why_processes_end(exit_code))
    if block.rows > 1:
        return block.singles()
    if deaths < MOST_DEATHS:
        return [block]
    return [block._replace(fault=fatal_image(deaths))]


def _why_processes_end(exit_code: int | None) -> str:
    killed = exit_code is None or exit_code < 0
    hint = "is there enough memory?" if killed else "what they printed says why"
    return f"the worker processes end by themselves (exit code {exit_code}): {hint}"


def _label_blocks(work: Work, device: str, connections: Sequence[Connection]) -> None:
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
    """Say that the process has started; label one block after the other until the connection ends."""
    try:
        connection.send(_Result([], *kept.take()))
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
