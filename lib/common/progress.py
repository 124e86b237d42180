"""Progress of a long run: one updated line on a terminal, one line every ten seconds elsewhere."""

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from threading import Event, Thread
from typing import Self, TextIO

from lib.common.logs import FACTS

log = logging.getLogger("progress")

EVERY_SECONDS = 10.0
EVERY_SECONDS_ON_A_TERMINAL = 0.5
SPEED_OVER_SECONDS = 60.0
"""Window of the speed that is shown: the start of a run is slower."""


class Progress:
    """Reports the progress of a run from a thread while a `with` block runs."""

    def __init__(
        self,
        total: int,
        count: Callable[[], Counter[str]],
        stream: TextIO | None = None,
        tell: Callable[[Counter[str], float], None] = lambda counts, rate: None,
    ) -> None:
        """Prepare.

        Args:
            total: images of the whole run.
            count: gives the images done so far by status. The images at the start belong to an earlier
                start of the run and do not count for the speed.
            stream: to write to; None: the log, or standard error if it is a terminal.
            tell: also gets the images done by status and the images per second.
        """
        self._total = total
        self._count = count
        self._stream = stream
        self._tell = tell
        self._live = self._out.isatty()
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._recent = deque([(time.monotonic(), self._count().total())])
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._write(self._count())
        if self._live:
            self._out.write("\n")

    def _run(self) -> None:
        pause = EVERY_SECONDS_ON_A_TERMINAL if self._live else EVERY_SECONDS
        took = 0.0
        # Counting rows in a bucket is slow: it takes at most a tenth of the time.
        while not self._stopped.wait(max(pause, 9 * took)):
            started = time.monotonic()
            self._write(self._count())
            took = time.monotonic() - started

    def _write(self, counts: Counter[str]) -> None:
        speed = self._speed(counts.total())
        self._tell(counts, speed)
        line = progress_line(counts, self._total, speed)
        if self._stream is None and not self._live:
            facts = {"images": self._total, "statuses": dict(counts), "images_per_second": speed}
            log.info("%s", line, extra={FACTS: facts})
            return
        # Return to the start of the line and clear it.
        self._out.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        self._out.flush()

    @property
    def _out(self) -> TextIO:
        return self._stream or sys.stderr

    def _speed(self, done: int) -> float:
        now = time.monotonic()
        self._recent.append((now, done))
        while len(self._recent) > 2 and self._recent[1][0] < now - SPEED_OVER_SECONDS:
            self._recent.popleft()
        then, done_then = self._recent[0]
        return (done - done_then) / (now - then) if now > then else 0.0


def progress_line(counts: Counter[str], total: int, rate: float) -> str:
    """The progress of a run in one line.

    Args:
        counts: images done so far, by status.
        total: images of the whole run.
        rate: images a second.
    """
    statuses = " ".join(f"{status} {n:,}" for status, n in counts.most_common())
    return f"{how_far(counts.total(), total, rate)} · {statuses or '-'}"


def how_far(done: int, total: int, rate: float | None) -> str:
    """The share of images that are done, the speed and the time left, in words.

    Args:
        done: images so far.
        total: images of the whole run.
        rate: images a second; None where it is unknown.
    """
    parts = [f"{done:,} of {total:,} images ({100 * done / total:.0f}%)" if total else "no images"]
    if rate is not None:
        parts.append(f"{rate:.1f} images/s")
    if done < total:
        parts.append(f"{duration((total - done) / rate) if rate else '?'} left")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words: `42 s`, `3 min 05 s`, `7 h 12 min`, `2 d 03 h`."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 1:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} min {whole % 60:02d} s"
    if days < 1:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24:02d} h"
