"""What a stage of the scoring pipeline is, and how several of them become one."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

REPORT_EVERY_SECONDS = 1.0


class Stopwatch:
    """Adds up seconds by the name of what was done."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done inside the `with` block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """Give the seconds so far and start again from zero."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds


class Stage(Protocol):
    """Configuration plus one verb. A stage is pickled to a worker before `setup` is called there."""

    def setup(self, watch: Stopwatch) -> None:
        """Load what is needed, once for each process; `watch` is for timing the work."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Process a batch: as many rows out as in, in the same order."""


class Chain:
    """Several stages in one process, one after the other: nothing is copied between them."""

    def __init__(
        self,
        stages: Sequence[Stage],
        report: Callable[[dict[str, float]], None] = lambda seconds: None,
    ) -> None:
        """Set up all stages.

        Args:
            stages: in order.
            report: called now and then with the seconds that each kind of work took since the last
                call; what is not reported at the end are less than `REPORT_EVERY_SECONDS`.
        """
        self._stages = stages
        self._report = report
        self._reported = time.monotonic()
        self._watch = Stopwatch()
        for stage in stages:
            stage.setup(self._watch)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Send a batch through all stages."""
        for stage in self._stages:
            batch = stage(batch)
        if time.monotonic() - self._reported >= REPORT_EVERY_SECONDS:
            self._reported = time.monotonic()
            self._report(self._watch.take())
        return batch
