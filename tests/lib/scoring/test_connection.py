"""Jobs say what they wait for: real clusters that are gone, silent or full."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lib.scoring.connection import SHORT_OF_MEMORY, ending_line, is_for_memory
from tests.ending_job import DEATHS, SEEN
from tests.ray_head import Job, RayHead, ray_head, run_job, wait_until

JOB = "tests.ending_job"
SECONDS = 15
ENDED = re.compile(r"worker processes that have ended and are started again: (\d+)\n")


@pytest.fixture(scope="module")
def full() -> Iterator[RayHead]:
    with ray_head(cpus=1, dashboard=True) as head:
        yield head


@pytest.fixture(scope="module")
def stopped() -> Iterator[dict[str, str]]:
    """The environment of a cluster that was ended by a signal; its folder is still there."""
    with ray_head(cpus=1) as head:
        folder = Path(head.environment["RAY_TMPDIR"])
        for process in head.processes():
            process.send_signal(signal.SIGKILL)
        wait_until(lambda: not head.processes(), 30)
        assert list(folder.rglob("ray_current_cluster")), "Ray has left no address"
        yield head.environment


def test_without_an_address_a_job_starts_its_own_cluster(
    stopped: dict[str, str], tmp_path: Path
) -> None:
    # An empty address is none.
    environment = {**stopped, "RAY_ADDRESS": ""}
    status, output = run_job(environment, tmp_path / "log", JOB, "connect")
    assert (status, output) == (0, f"CPUs {float(os.cpu_count() or 1)}\n")


def test_a_stopped_cluster_is_named(stopped: dict[str, str], tmp_path: Path) -> None:
    refused(stopped, tmp_path, f"RAY_ADDRESS={stopped['RAY_ADDRESS']} (Connection refused)")


def test_a_silent_address_is_named(stopped: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        refused({**stopped, "RAY_ADDRESS": address}, tmp_path, f"{address} (silent for 10 s)")


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265", "head"])
def test_an_address_of_another_kind_is_named(
    stopped: dict[str, str], tmp_path: Path, address: str
) -> None:
    refused({**stopped, "RAY_ADDRESS": address}, tmp_path, f"RAY_ADDRESS={address} cannot be used")


def test_the_dashboard_is_no_head(full: RayHead, tmp_path: Path) -> None:
    address = full.dashboard.removeprefix("http://")
    environment = {**full.environment, "RAY_ADDRESS": address}
    refused(environment, tmp_path, f"no Ray cluster answers at RAY_ADDRESS={address}")


def refused(environment: dict[str, str], tmp_path: Path, reason: str) -> None:
    started = time.monotonic()
    status, output = run_job(environment, tmp_path / "log", JOB, "connect")
    assert time.monotonic() - started < SECONDS
    assert status == 2
    assert output.startswith("error: ")
    assert reason in output
    assert output.count("\n") == 1


def test_waits_and_deaths_are_said(full: RayHead, head: RayHead, tmp_path: Path) -> None:
    """Workers of Ray Data, of Ray Train and tasks wait for the only CPU, then do their work.

    On another cluster, workers end and are started again.
    """
    waits = {
        "actors": "waiting for room: 1 x worker of 1 CPU; the cluster has 1 CPU",
        "group": "waiting for room: 1 x group of workers (2 of 0.5 CPU); the cluster has 1 CPU",
        "tasks": "waiting for room: 1 x task of 1 CPU; the cluster has 1 CPU",
    }
    with ExitStack() as jobs:
        hold = jobs.enter_context(Job(full.environment, tmp_path / "hold", JOB, "hold"))
        wait_until(lambda: "held" in hold.output, 60)
        waiting = {
            how: jobs.enter_context(Job(full.environment, tmp_path / how, JOB, how))
            for how in waits
        }
        dying = jobs.enter_context(
            Job(head.environment, tmp_path / "deaths", JOB, "deaths", tmp_path / "note")
        )
        for how, line in waits.items():
            wait_until(lambda job=waiting[how], line=line: line in job.output, 90)  # type: ignore[misc]
        wait_until(lambda: sum(map(int, ENDED.findall(dying.output))) == DEATHS, 90)
        (tmp_path / "note").with_suffix(SEEN).touch()
        hold.process.send_signal(signal.SIGINT)
        for how, job in waiting.items():
            assert job.finish(100) == 0, (how, job.output)
        assert dying.finish(100) == 0, dying.output


def test_what_ray_says_of_memory_is_recognised() -> None:
    killed = "Ray killed 1 worker(s) based on the killing policy"
    assert is_for_memory(f"Task was killed due to the node running low.\n{killed}")
    assert not is_for_memory("Worker exits because the actor is killed.")
    assert SHORT_OF_MEMORY in ending_line(3, short_of_memory=True)


def test_a_job_that_has_left_its_cluster_is_stopped_as_before(
    head: RayHead, tmp_path: Path
) -> None:
    """Ray's shutdown takes the handler of SIGTERM away, which ended the job without a word."""
    with Job(head.environment, tmp_path / "log", JOB, "leave") as job:
        wait_until(lambda: "left" in job.output, 60)
        job.process.send_signal(signal.SIGTERM)
        assert job.finish(30) == 130, job.output
        assert "stopped" in job.output


def test_a_late_thread_of_ray_data_does_not_connect_again(head: RayHead, tmp_path: Path) -> None:
    """It once did so between two labellings of a training, and Ray refused the second connection."""
    status, output = run_job(head.environment, tmp_path / "log", JOB, "prefetch")
    assert (status, output) == (0, "left\n")


def test_work_that_is_interrupted_ends_before_the_cluster(head: RayHead, tmp_path: Path) -> None:
    """It once ended when the traceback was gone, behind the shutdown, and Ray printed a stack trace."""
    status, output = run_job(head.environment, tmp_path / "log", JOB, "interrupt")
    assert (status, output) == (130, "stopped; give the same command again\n")
