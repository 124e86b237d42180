import os
import signal
import subprocess
import sys

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
