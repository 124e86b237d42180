"""A process that ends without a word leaves one line behind."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.ending_job import REMEDY
from tests.ray_head import Job, run_job, wait_until


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("exit", 1, "killed, or ended by native code"),
        ("kill", -signal.SIGKILL, "killed, or ended by native code"),
        ("crash", -signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_death_is_said_in_one_line(tmp_path: Path, how: str, status: int, said: str) -> None:
    log = tmp_path / "log"
    with Job({**os.environ, "TMPDIR": str(tmp_path)}, log, "tests.ending_job", how) as job:
        assert job.finish(30) == status
        wait_until(lambda: job.output.endswith("\n"), 10)
        assert job.output.count("\n") == 1
        assert job.output.startswith("error: the process of the job was killed, or ended by native")
        assert said in job.output
        assert REMEDY in job.output
    kept = list(tmp_path.glob("job-*.log"))
    assert len(kept) == (how == "crash")
    assert all(str(file) in log.read_text() and file.stat().st_size for file in kept)


def test_what_ends_by_itself_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    assert run_job(environment, tmp_path / "log", "tests.ending_job", "end") == (3, "")
    assert not list(tmp_path.glob("job-*.log"))


def test_native_code_on_a_cluster(tmp_path: Path) -> None:
    """What it says itself is hidden from the terminal, and kept."""
    # Sockets of Ray have short names.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "TMPDIR": str(tmp_path), "RAY_TMPDIR": folder}
        environment.pop("RAY_ADDRESS", None)
        with Job(environment, tmp_path / "log", "tests.ending_job", "abort") as job:
            assert job.finish(120) == -signal.SIGABRT
            wait_until(lambda: job.output.endswith("\n"), 10)
            assert job.output.count("\n") == 1
            assert "Fatal Python error: Aborted" in job.output
            logs = job.output.rpartition(", ")[2].strip()
            assert Path(logs).is_relative_to(folder)
            assert Path(logs).is_dir()
