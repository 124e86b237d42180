import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_head import PROJECT


def test_help_ends_without_words_when_nobody_reads_on() -> None:
    """As in `python -m jobs.train --help | head`."""
    unread, pipe = os.pipe()
    os.close(unread)
    with os.fdopen(pipe, "wb") as closed:
        run = subprocess.run(
            [sys.executable, "-m", "jobs.train", "--help"],
            cwd=PROJECT, stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert run.returncode == -signal.SIGPIPE
    assert run.stderr == b""


def test_ctrl_c_is_one_line_with_the_remedy_and_status_130(tmp_path: Path) -> None:
    job = tmp_path / "waits.py"
    job.write_text(
        "import time\n"
        "from lib.common import options\n"
        "def main() -> int:\n"
        "    print('started', flush=True)\n"
        # A signal that comes just before a sleep waits for its end: so many short ones.
        "    for _ in range(6000):\n"
        "        time.sleep(0.01)\n"
        "    return 0\n"
        "options.run(main, 'go on with it')\n"
    )
    run = subprocess.Popen(
        [sys.executable, str(job)], env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "started\n"
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60)[1] == "stopped; go on with it\n"
    assert run.returncode == 130


@pytest.mark.parametrize("job", ["score", "status"])
def test_errors_and_help_name_the_job(job: str) -> None:
    def told(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"jobs.{job}", *arguments],
            cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert f"usage: python -m jobs.{job} " in told("--help").stdout
    wrong = told("--no-such-option")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert f"`python -m jobs.{job} --help`" in wrong.stderr
