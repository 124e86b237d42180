"""The progress of the first worker, carried to the job by an actor.

Importing this imports Ray, which takes seconds; jobs do so when their options have been checked.
"""

import logging
import time
from threading import Event, Thread
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from lib.common.errors import reason_of
from lib.training.history import History

log = logging.getLogger("train")

REPORT_EVERY_SECONDS = 1.0

Progress = tuple[list[dict[str, Any]], int, int, float]
"""The arguments of `History.update`."""


class StepRate:
    """Faces a second in an epoch, counted from the end of its first step, which may have been compiled.

    Args:
        faces: of a step.
    """

    def __init__(self, faces: int) -> None:
        self._faces = faces
        self._first: tuple[float, int] | None = None

    def __call__(self, step: int) -> float:
        """Tell the number of a step that has just ended; gives the rate so far, 0 for the first one."""
        now = time.monotonic()
        if self._first is None:
            self._first = now, step
        since, first = self._first
        return (step - first) * self._faces / max(now - since, 1e-9)


@ray.remote(num_cpus=0)
class ProgressActor:
    """Holds the latest progress, the plots to draw, and why a worker failed."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._reason: str | None = None
        self._distributions: dict[int, NDArray[np.float64]] = {}
        self._warnings: list[str] = []
        self._warned = 0
        self._over: list[tuple[str, float]] = []
        self._phase, self._since = "", time.monotonic()

    def begin(self, phase: str) -> None:
        """Say what begins, and that what went on is over; "": nothing but training."""
        now = time.monotonic()
        if self._phase:
            self._over.append((self._phase, now - self._since))
        self._phase, self._since = phase, now

    def take_phases(self) -> tuple[list[tuple[str, float]], tuple[str, float] | None]:
        """The arguments of `History.log_start`."""
        over, self._over = self._over, []
        current = (self._phase, time.monotonic() - self._since) if self._phase else None
        return over, current

    def set_progress(
        self, epochs: list[dict[str, Any]], step: int, steps: int, rate: float
    ) -> None:
        """Replace the progress; see `History.update`."""
        self._progress = epochs, step, steps, rate

    def progress(self) -> Progress | None:
        """The latest progress."""
        return self._progress

    def warn(self, warning: str) -> None:
        """Ask for a warning in the job's log, where it will stand once whoever repeats it."""
        if warning not in self._warnings:
            self._warnings.append(warning)

    def take_warnings(self) -> list[str]:
        """The warnings since the last call."""
        new, self._warned = self._warnings[self._warned :], len(self._warnings)
        return new

    def add_distributions(self, epoch: int, distributions: NDArray[np.float64]) -> None:
        """Ask for the plot of an epoch; see `History.plot`."""
        self._distributions[epoch] = distributions

    def take_distributions(self) -> dict[int, NDArray[np.float64]]:
        """The plots that were asked for since the last call, by epoch."""
        taken, self._distributions = self._distributions, {}
        return taken

    def fail(self, reason: str) -> None:
        """Record why no worker can go on."""
        self._reason = reason

    def reason(self) -> str | None:
        """Why no worker can go on; None if no worker failed."""
        return self._reason


class ProgressReader:
    """Copies the progress to the history, in a thread of its own, while a `with` block runs."""

    def __init__(self, actor: Any, history: History) -> None:
        self._actor, self._history = actor, history
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._stopped.wait(REPORT_EVERY_SECONDS):
            try:
                self._read()
            except OSError as error:  # the next call, or the last one, writes them again
                log.warning("the metrics could not be written: %s", reason_of(error))

    def _read(self) -> None:
        for warning in ray.get(self._actor.take_warnings.remote()):
            log.warning("%s", warning)
        self._history.log_start(*ray.get(self._actor.take_phases.remote()))
        if progress := ray.get(self._actor.progress.remote()):
            self._history.update(*progress)
        for epoch, distributions in ray.get(self._actor.take_distributions.remote()).items():
            self._history.plot(epoch, distributions)
