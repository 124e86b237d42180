"""What a training does before its first step, and what its log says of that."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.storage.folder import folder
from lib.training import history
from lib.training.history import History
from lib.training.run_progress import StepRate
from tests.ray_head import PROJECT


def test_the_driver_does_not_import_tensorflow() -> None:
    program = "import sys, lib.training.workers; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True)


def test_the_log_tells_what_happens_before_the_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    with History(folder(tmp_path), 3) as of_run:
        of_run.log_start([("importing", 3.21), ("building", 1.0)], ("compiling", 0.4))
        monkeypatch.setattr(history, "EVERY_SECONDS", 0.0)
        of_run.log_start([], ("compiling", 12.3))
        of_run.update([], 0, 10, 0.0)
        of_run.log_start([("compiling", 14.0)], None)
        of_run.update([], 1, 10, 52.0)
    assert caplog.messages == [
        "importing: 3.2 s",
        "building: 1.0 s",
        "compiling for 12 s",
        "compiling: 14.0 s",
        "epoch 1/3 · step 1 of 10 · 52 images/s",
    ]


def test_the_rate_leaves_out_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have waited for a compiler; a run that goes on begins in the middle of an epoch."""
    ends = iter([45.0, 46.0, 49.0])
    clock = SimpleNamespace(monotonic=lambda: next(ends))
    monkeypatch.setattr("lib.training.run_progress.time", clock)
    rate = StepRate(faces=32)
    assert [rate(step) for step in (7, 8, 11)] == [0, 32, 32]
