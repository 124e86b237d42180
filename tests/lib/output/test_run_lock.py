import errno
import fcntl
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from lib.common.errors import UserError
from lib.output import run_lock
from lib.output.run_lock import FILE, RunLock
from lib.storage.buckets import open_bucket
from lib.storage.errors import ConditionsError
from lib.storage.folder import Folder, folder
from tests.ray_head import PROJECT
from tests.s3_server import Proxy


def no_locks(file: object, operation: int) -> None:
    """Answer as some network file systems do."""
    raise OSError(errno.ENOLCK, "No locks available")


HOLD = """
import errno
import fcntl
import sys
from lib.output.run_lock import RunLock
from lib.storage.options import S3Options, StorageOptions
from lib.storage.folder import folder
def no_locks(file, operation):
    raise OSError(errno.ENOLCK, "No locks available")
if sys.argv[3] == "no locks":
    fcntl.flock = no_locks
with RunLock(folder(sys.argv[1], StorageOptions(S3Options(sys.argv[2] or None, "us-east-1")))):
    print("taken", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(
    params=["local", "local without locks", "s3", "s3 without conditions", "s3 with 501", "az"]
)
def output(
    request: pytest.FixtureRequest, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Folder:
    monkeypatch.setattr(run_lock, "SETTLE_SECONDS", 1.0)
    if request.param.startswith("local"):
        if "without" in request.param:
            monkeypatch.setattr(fcntl, "flock", no_locks)
        return folder(tmp_path / "out")
    if request.param == "az":
        request.getfixturevalue("azure")
        return folder(f"az://photos/{tmp_path.name}")
    if request.param.endswith("501"):
        proxy.refuses = lambda method, path, headers: (
            501 if {"if-none-match", "if-match"} & headers.keys() else None
        )
    proxy.conditional = request.param == "s3"
    proxy.server.make_bucket("locks")
    return folder(f"s3://locks/{tmp_path.name}", proxy.options)


def test_the_second_refuses_and_the_next_may(output: Folder) -> None:
    with RunLock(output):
        with pytest.raises(UserError) as caught, RunLock(output):
            pass
        assert "another run (process" in str(caught.value)
        assert repr(str(output)) in str(caught.value)
    with RunLock(output):
        pass


def test_a_killed_run_on_this_machine_holds_nothing_up(output: Folder) -> None:
    endpoint = output.options.s3.endpoint or ""
    locks = "no locks" if fcntl.flock is no_locks else ""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, output.uri, endpoint, locks],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"taken\n"
    with pytest.raises(UserError, match=f"process {holder.pid}"), RunLock(output):
        pass
    holder.kill()
    holder.wait()
    with RunLock(output):
        pass


def test_two_at_once(output: Folder) -> None:
    """However they meet, no more than one gets it."""
    for _ in range(2):
        taken: list[int] = []
        refused: list[UserError] = []
        done = Event()

        def run(number: int) -> None:
            try:
                with RunLock(output):
                    taken.append(number)  # noqa: B023
                    done.wait(20)  # noqa: B023
            except UserError as error:
                refused.append(error)  # noqa: B023

        threads = [Thread(target=run, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        while len(taken) + len(refused) < 2:
            done.wait(0.01)
        done.set()
        for thread in threads:
            thread.join()
        assert len(taken) == 1
        assert len(refused) == 1


def test_a_lock_that_is_not_renewed_expires(
    output: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if output.is_local and fcntl.flock is not no_locks:
        pytest.skip("the system lets go of it")
    other = {"token": "x", "host": "elsewhere", "pid": 1, "machine": ""}
    output.write(FILE, json.dumps(other).encode())
    with pytest.raises(UserError, match=r"process 1 on elsewhere.* its lock expires in \d+ s"):
        RunLock(output).__enter__()
    monkeypatch.setattr(run_lock, "EXPIRES_SECONDS", 0.0)
    with RunLock(output):
        pass


def test_whoever_lost_the_lock_stops(output: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "RENEW_SECONDS", 0.1)
    other = {"token": "x", "host": "elsewhere", "pid": 1, "machine": ""}

    def lose() -> None:
        with RunLock(output) as lock:
            Event().wait(0.5)  # renewed meanwhile
            if output.is_local or not _is_conditional(output):
                pytest.skip("the old holder writes over it, or the system holds it")
            output.write(FILE, json.dumps(other).encode())
            Event().wait(20)
            assert lock is None, "it did not stop"

    with pytest.raises(KeyboardInterrupt):
        lose()


def test_a_run_whose_lock_has_expired_stops(
    output: Folder, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may have taken it: that it cannot be seen is no reason to go on."""
    if not output.uri.startswith("s3://"):
        pytest.skip("no proxy is between")
    monkeypatch.setattr(run_lock, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(run_lock, "EXPIRES_SECONDS", 1.0)

    def lose() -> None:
        with RunLock(output):
            proxy.rule = lambda method, key, times: "403"
            Event().wait(20)

    with pytest.raises(KeyboardInterrupt):
        lose()


def _is_conditional(output: Folder) -> bool:
    bucket, key = open_bucket(f"{output.uri}/probe", output.options)
    bucket.write(key, b"")
    with suppress(ConditionsError):
        return bucket.write(key, b"", new=True) is None
    return False
