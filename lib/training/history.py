"""The progress of a training run: a file of metrics, TensorBoard, and lines of a log."""

import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lib.common.progress import duration
from lib.storage.folder import Folder
from lib.tasks import TASKS
from lib.tasks.age import CLASS_SEPARATION

log = logging.getLogger(__name__)

METRICS, BOARD, PLOTS = "metrics.jsonl", "tensorboard", "plots"
EVERY_SECONDS = 10.0


class History:
    """Writes the metrics of every epoch, and logs how far the current epoch is."""

    def __init__(self, output: Folder, epochs: int) -> None:
        """Prepare.

        Args:
            output: folder of the run.
            epochs: of the whole run.
        """
        self._output = output
        self._epochs = epochs
        self._written: int | None = None
        self._logged = time.monotonic()

    def __enter__(self) -> Self:
        from tensorboardX import SummaryWriter  # takes a second

        # What an earlier start of the run wrote is written again from its checkpoint.
        (self._output / BOARD).delete_all()
        local = self._output.is_local
        self._here = Path(self._output.uri if local else tempfile.mkdtemp(prefix="history-"))
        self._board = SummaryWriter(str(self._here / BOARD))
        return self

    def __exit__(self, *error: object) -> None:
        self._board.close()
        if not self._output.is_local:
            self._output.upload(self._here)
            shutil.rmtree(self._here)

    def update(self, epochs: list[dict[str, Any]], step: int, steps: int, rate: float) -> None:
        """Write the metrics of new epochs, and log the progress of the current one.

        Args:
            epochs: metrics of all epochs that are over.
            step: steps done of the epoch that goes on.
            steps: of an epoch.
            rate: faces a second.
        """
        if self._written is None and epochs:
            log.info("goes on after epoch %d of %d", len(epochs), self._epochs)
            self._logged = time.monotonic()
        for epoch in epochs[self._written or 0 :]:
            for name, value in epoch.items():
                self._board.add_scalar(name, value, epoch["epoch"])
            if self._written is not None:
                log.info("%s", epoch_line(epoch, self._epochs))
                self._logged = time.monotonic()
        if len(epochs) != self._written:
            self._board.flush()
            lines = "".join(json.dumps(epoch) + "\n" for epoch in epochs)
            (self._here / METRICS).write_text(lines, "utf-8")
            if not self._output.is_local:
                self._output.upload(self._here)
            self._written = len(epochs)
        if time.monotonic() - self._logged >= EVERY_SECONDS and 0 < step < steps:
            self._logged = time.monotonic()
            log.info("%s", step_line(len(epochs) + 1, self._epochs, step, steps, rate, epochs))

    def log_start(self, over: list[tuple[str, float]], current: tuple[str, float] | None) -> None:
        """Log what happens before the first step.

        Args:
            over: phases that are over since the last call, with the seconds that each took.
            current: the phase that goes on, with its seconds so far; None: none does.
        """
        for phase, seconds in over:
            log.info("%s: %.1f s", phase, seconds)
            self._logged = time.monotonic()
        if current and min(current[1], time.monotonic() - self._logged) >= EVERY_SECONDS:
            log.info("%s for %.0f s", *current)
            self._logged = time.monotonic()

    def plot(self, epoch: int, distributions: NDArray[np.float64]) -> None:
        """Draw the class separation after an epoch, float64 (101, 101) of `Trainer.distributions`."""
        from lib.tasks import plots  # importing Matplotlib takes a second

        figure = plots.class_separation(distributions)
        plots.save(figure, self._here / PLOTS, f"{CLASS_SEPARATION}-{epoch:03}")
        self._board.add_figure(CLASS_SEPARATION, figure, epoch)


def epoch_line(epoch: dict[str, Any], epochs: int) -> str:
    """The metrics of one epoch in words."""
    forms = {"val_loss": "loss {:.3f}"}
    for task in TASKS.values():
        forms |= task.validation_formats
    validation = ", ".join(form.format(epoch[key]) for key, form in forms.items() if key in epoch)
    return (
        f"epoch {epoch['epoch']}/{epochs} · loss {epoch['loss']:.3f} · validation {validation} · "
        f"{epoch['images_per_second']:.0f} images/s"
    )


def step_line(
    epoch: int, epochs: int, step: int, steps: int, rate: float, past: list[dict[str, Any]]
) -> str:
    """How far the epoch is, in words."""
    if past and past[-1].get("seconds"):
        left = past[-1]["seconds"] * (epochs - epoch + 1 - step / max(steps, 1))
        time_left = f" · {duration(left)} left"
    else:
        time_left = ""
    return f"epoch {epoch}/{epochs} · step {step} of {steps} · {rate:.0f} images/s{time_left}"
