"""The main job on one machine: without a cluster, and otherwise as with one."""

import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from lib.common.demo import EXPECTED, make_demo
from lib.scoring import on_this_machine
from lib.scoring.placement import Placement, Size
from tests.ray_head import Job, RayHead, command, run_job, wait_until
from tests.s3_server import Fault, Proxy, S3Server

SCORE = "jobs.score"
MANY = 300


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(str(folder))
    return folder


def labels(output: Path) -> pd.DataFrame:
    return pd.read_parquet(output / "labels").sort_values("id").reset_index(drop=True)


def test_as_on_a_cluster(demo: Path, head: RayHead, alone: dict[str, str], tmp_path: Path) -> None:
    found = {}
    for name, environment in (("here", alone), ("cluster", head.environment)):
        output, log = tmp_path / name, tmp_path / f"{name}.log"
        status, text = run_job(environment, log, SCORE, "--images", demo, "--output", output)
        assert status == 0, text
        assert "10 of 10 images (100%)" in text
        found[name] = labels(output)
    here, cluster = found["here"], found["cluster"]
    assert dict(zip(here["uri"].str.rpartition("/")[2], here["status"], strict=True)) == EXPECTED
    pd.testing.assert_frame_equal(
        here.drop(columns="faces"), cluster.drop(columns="faces"), atol=1e-3
    )


def test_without_ray_and_tensorflow_and_soon(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import sys; from jobs.score import main; "
        f"status = main(['--images', {str(demo)!r}, '--output', {str(tmp_path / 'out')!r}]); "
        "print(status, sorted({'ray', 'tensorflow'} & set(sys.modules)))"
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("wanted", "address", "suits"),
    [
        (Placement(), None, True),
        (Placement(), "", True),
        (Placement(faces=Size(actors=2)), None, False),
        (Placement(layout="separate"), None, False),
        (Placement(), "127.0.0.1:6379", False),
    ],
)
def test_a_cluster_is_used_where_it_is_wanted(
    wanted: Placement, address: str | None, suits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert on_this_machine.suits(wanted) == suits


@pytest.fixture(scope="module")
def many(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images than one process would label."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        (folder / f"{number:03}.jpg").hardlink_to(demo / "portrait_large.jpg")
    return folder


def workers_of(job: Job) -> list[psutil.Process]:
    children = psutil.Process(job.process.pid).children(recursive=True)
    return [child for child in children if "multiprocessing.spawn" in command(child)]


def files(output: Path) -> int:
    return len(list((output / "labels").glob("*.parquet")))


def test_killed_workers_are_replaced(
    many: Path, model: Path, alone: dict[str, str], tmp_path: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    with Job(alone, log, SCORE, "--images", many, "--output", output, "--model", model) as job:
        wait_until(lambda: files(output) >= 2, 90)
        for worker in workers_of(job):
            worker.kill()
        assert job.finish() == 0, job.output
    found = labels(output)
    assert found["id"].tolist() == list(range(MANY))
    assert (found["status"] == "ok").all()


def test_workers_end_with_the_job_that_is_killed(
    many: Path, model: Path, alone: dict[str, str], tmp_path: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    command_ = [SCORE, "--images", many, "--output", output, "--model", model]
    with Job(alone, log, *command_) as job:
        wait_until(lambda: files(output) >= 2, 90)
        workers = workers_of(job)
        assert workers
        job.process.kill()
    gone, left = psutil.wait_procs(workers, timeout=5)
    assert len(gone) == len(workers)
    assert not left
    assert 0 < len(labels(output)) < MANY
    status, text = run_job(alone, log, *command_)
    assert status == 0, text
    assert labels(output)["id"].tolist() == list(range(MANY))


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_it_waits_for_the_network_then_started_again(
    signal_: int,
    demo: Path,
    model: Path,
    s3: S3Server,
    proxy: Proxy,
    alone: dict[str, str],
    tmp_path: Path,
) -> None:
    bucket = s3.bucket(f"few-{signal_}")
    for number in range(90):
        (bucket / f"{number:02}.jpg").write_bytes((demo / "portrait_small.jpg").read_bytes())
    output, log = tmp_path / "out", tmp_path / "log"
    command = [
        *(SCORE, "--images", f"s3://few-{signal_}", "--output", output, "--model", model),
        *("--s3.endpoint", proxy.endpoint, "--s3.region", "us-east-1"),
    ]

    def rule(method: str, key: str, _: int) -> Fault | None:
        return "hang" if method == "GET" and key.endswith("70.jpg") else None

    proxy.rule = rule
    with Job(alone, log, *command) as job:
        wait_until(lambda: proxy.hanging.is_set() and (output / "labels").is_dir(), 60)
        wait_until(lambda: len(list((output / "labels").glob("*.parquet"))) >= 4, 60)
        job.process.send_signal(signal_)
        asked = time.monotonic()
        status = job.finish(20)
        assert time.monotonic() - asked < 5
        if signal_ != signal.SIGKILL:
            assert status == 130
            assert "the same command goes on where it was" in job.output
            assert "Traceback" not in job.output
    assert len(labels(output)) == 64
    proxy.reset()
    status, text = run_job(alone, log, *command)
    assert status == 0, text
    found = labels(output)
    assert found["id"].tolist() == list(range(90))
    assert (found["status"] == "ok").all()
