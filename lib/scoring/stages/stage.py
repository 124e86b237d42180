"""What a stage of the scoring pipeline is, and how several of them become one."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

import pyarrow as pa

BATCH = 32
"""Images that pass the stages together; what is in memory of each worker at a time."""
REPORT_EVERY_SECONDS = 1.0


Say = Callable[[str], None]
"""Takes a line for the log of the run; a line that several workers say is logged once."""


def _say_nothing(line: str) -> None:
    return


class Stopwatch:
    """Adds up seconds by the name of what was done; threads may share it.

    Attributes:
        say: for what a stage has to say to the user.
    """

    def __init__(self, say: Say = _say_nothing) -> None:
        self.say = say
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done inside the `with` block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self._seconds[name] += seconds

    def take(self) -> dict[str, float]:
        """Give the seconds so far and start again from zero."""
        with self._lock:
            seconds = dict(self._seconds)
            self._seconds.clear()
        return seconds


class Stage(Protocol):
    """Configuration plus one verb. A stage is pickled to a worker before `setup` is called there."""

    @property
    def needs(self) -> Sequence[str]:
        """Columns that it reads."""

    @property
    def drops(self) -> Sequence[str]:
        """Columns that it takes away, where they are there."""

    @property
    def gives(self) -> Sequence[str]:
        """Columns that it adds or replaces."""

    def setup(self, watch: Stopwatch) -> None:
        """Load what is needed, once for each process; `watch` times the work, and takes messages."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Process a batch: as many rows out as in, in the same order."""


def check_columns(stages: Sequence[Stage], columns: Sequence[str]) -> None:
    """Check that each stage gets the columns that it needs.

    Args:
        stages: in order.
        columns: what the first one gets.

    Raises:
        ValueError: names the stage and the column that is missing.
    """
    there = set(columns)
    for stage in stages:
        if missing := [name for name in stage.needs if name not in there]:
            raise ValueError(
                f"the stage {type(stage).__name__} needs the column {missing[0]!r}, which no stage "
                "before it gives"
            )
        there = (there - set(stage.drops)) | set(stage.gives)


def with_column(batch: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The batch with this column, in place of one of the same name."""
    if name in batch.column_names:
        return batch.set_column(batch.column_names.index(name), name, column)
    return batch.append_column(name, column)


class Chain:
    """Several stages in one process, one after the other: nothing is copied between them."""

    def __init__(
        self,
        stages: Sequence[Stage],
        report: Callable[[dict[str, float]], None] = lambda seconds: None,
        say: Say = _say_nothing,
    ) -> None:
        """Set up all stages.

        Args:
            stages: in order.
            report: called now and then with the seconds that each kind of work took since the last
                call; the last ones only by `report`.
            say: called with what the stages have to say to the user.
        """
        self._stages = stages
        self._checked = False
        self._report = report
        self._reported = time.monotonic()
        self._watch = Stopwatch(say)
        for stage in stages:
            stage.setup(self._watch)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Send a batch through all stages."""
        self._check(batch)
        return self._finish(self._stages[0](batch))

    def stream(self, block: pa.Table, rows: int, size: int) -> Iterator[pa.Table]:
        """Send a block through all stages, a batch at a time.

        The first stage, which may wait for a network, is always one batch ahead of the others.

        Args:
            block: any number of rows.
            rows: the largest batch.
            size: bytes of images that make a batch full, where the block knows them (column `size`).
        """
        self._check(block)
        first = self._stages[0]
        thread = ThreadPoolExecutor(1, "ahead")
        try:
            waiting = None
            for batch in _batches(block, rows, size):
                begun = thread.submit(first, batch)
                if waiting is not None:
                    yield self._finish(waiting.result())
                waiting = begun
            if waiting is not None:
                yield self._finish(waiting.result())
        finally:
            thread.shutdown(wait=False)  # who stops a run does not wait for the network

    def _check(self, batch: pa.Table) -> None:
        """Check the columns, once: the first batch tells what there is."""
        if not self._checked:
            check_columns(self._stages, batch.column_names)
            self._checked = True

    def _finish(self, batch: pa.Table) -> pa.Table:
        for stage in self._stages[1:]:
            batch = stage(batch)
        if time.monotonic() - self._reported >= REPORT_EVERY_SECONDS:
            self.report()
        return batch

    def report(self) -> None:
        """Report what has not been reported."""
        self._reported = time.monotonic()
        self._report(self._watch.take())


def _batches(block: pa.Table, rows: int, size: int) -> Iterator[pa.Table]:
    sizes = block["size"].to_pylist() if "size" in block.column_names else [None] * len(block)
    start = 0
    together = 0
    for row, bytes_ in enumerate(sizes):
        if row > start and (row - start >= rows or together + (bytes_ or 0) > size):
            yield block.slice(start, row - start)
            start, together = row, 0
        together += bytes_ or 0
    yield block.slice(start)
