"""Processes of this machine: what is killed is done again, and nothing outlives its parent."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from lib.common.errors import UserError
from lib.common.processes import MOST_DEATHS, in_processes
from tests.ray_head import PROJECT, wait_until

PARENT = """
import sys
from functools import partial
from pathlib import Path
from lib.common.processes import in_processes
from tests.lib.common.test_processes import wait_for_ever
if __name__ == "__main__":
    list(in_processes(partial(wait_for_ever, Path(sys.argv[1])), [1, 2], ""))
"""


def double(number: int) -> int:
    return 2 * number


def die_once(folder: Path, number: int) -> int:
    """The first time, 3 kills its process."""
    marker = folder / "died"
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def no_room(number: int) -> int:
    raise OSError(28, "No space left on device")


def wait_for_ever(folder: Path, number: int) -> None:
    (folder / f"{os.getpid()}.pid").touch()
    signal.pause()


def test_every_item_has_its_result() -> None:
    assert sorted(in_processes(double, range(7), "")) == [0, 2, 4, 6, 8, 10, 12]


def test_what_a_killed_process_had_is_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert sorted(in_processes(partial(die_once, tmp_path), range(7), "")) == list(range(7))
    assert (tmp_path / "died").exists()
    assert caplog.messages == ["a worker process ended; others go on"]


def test_processes_that_end_again_and_again_are_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(UserError, match="end by themselves: is there enough memory"):
        list(in_processes(die, [1], ""))
    assert len(caplog.messages) == MOST_DEATHS


def test_an_error_is_one_line() -> None:
    with pytest.raises(UserError) as error:
        list(in_processes(no_room, [1, 2], "the images cannot be stored"))
    assert str(error.value) == "the images cannot be stored: [Errno 28] No space left on device"


def test_they_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT) as parent:
        wait_until(lambda: len(list(tmp_path.iterdir())) == min(2, os.cpu_count() or 1), 60)
        parent.kill()
    children = [int(file.stem) for file in tmp_path.iterdir()]
    assert children
    wait_until(lambda: not any(map(psutil.pid_exists, children)), 30)
