"""A real Ray cluster of one or more nodes, and jobs that run on it as processes of their own."""

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from tests.hosts import Host

PROJECT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class RayHead:
    """A running cluster. `environment` is what a process needs to connect to it, `metrics` the address
    that Prometheus would read."""

    environment: dict[str, str]
    dashboard: str
    metrics: str

    def processes(self, name: str = "") -> list[psutil.Process]:
        """The cluster's processes whose command starts with `name`.

        Ray's own servers have the cluster's folder on their command lines; all else descends from them.
        """
        folder = self.environment["RAY_TMPDIR"]
        found = set()
        for process in psutil.process_iter():
            if folder in command(process):
                found |= {process, *process.children(recursive=True)}
        return [process for process in found if command(process).startswith(name)]

    def add(self, host: Host, cpus: int, gpus: int = 0) -> "Machine":
        """Start another node, with logical GPUs."""
        # Nodes of several addresses must not share a folder, where each would write its own down.
        folder = Path(self.environment["RAY_TMPDIR"], host.address.rpartition(".")[2])
        folder.mkdir()
        log = folder / "node.log"
        command = [
            *(*host.within, "ray", "start", "--block", f"--temp-dir={folder}"),
            *(f"--address={self.environment['RAY_ADDRESS']}", f"--node-ip-address={host.address}"),
            *(f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--object-store-memory=150000000"),
            "--disable-usage-stats",
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        return Machine(self, host, psutil.Process(process.pid), log)

    def driver_log(self) -> str:
        """What Ray's native code last said in a job's own process, which may have been ended by it."""
        logs = Path(self.environment["RAY_TMPDIR"]).rglob(
            "session_2*/logs/python-core-driver-*.log"
        )
        newest = max(logs, key=lambda log: log.stat().st_mtime, default=None)
        return "" if newest is None else "\n".join(newest.read_text().splitlines()[-20:])

    def workers(self) -> list[psutil.Process]:
        """The processes that run stages now."""
        return self.processes("ray::MapWorker")


@dataclass(frozen=True)
class Machine:
    """A node besides the head; `process` is the one that all of its processes descend from."""

    head: RayHead
    host: Host
    process: psutil.Process
    log: Path

    def is_up(self) -> bool:
        """Whether the cluster has it."""
        return b"Ray runtime started" in self.log.read_bytes()

    def processes(self) -> list[psutil.Process]:
        """All that runs on it."""
        return [self.process, *self.process.children(recursive=True)]

    def runs(self, name: str) -> bool:
        """Whether one of its processes has a command that starts with `name`."""
        return any(command(process).startswith(name) for process in self.processes())

    def lose(self) -> None:
        """Lose it, as if its cable was pulled; where it has none of its own, as if its power failed."""
        if not self.host.unplug():
            self.kill()

    def kill(self) -> None:
        """Lose it, as if its power failed."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # gone with another one
                process.kill()

    def drain(self, seconds: int) -> None:
        """Give notice that it will be taken away in so many seconds, as clouds do of spot machines."""
        (raylet,) = (p for p in self.processes() if "/raylet/raylet " in command(p))
        (node,) = (a.partition("=")[2] for a in raylet.cmdline() if a.startswith("--node_id="))
        subprocess.run(
            [
                *("ray", "drain-node", f"--address={self.head.environment['RAY_ADDRESS']}"),
                *(f"--node-id={node}", "--reason=DRAIN_NODE_REASON_PREEMPTION"),
                *("--reason-message=spot", f"--deadline-remaining-seconds={seconds}"),
            ],
            env=self.head.environment, check=True, capture_output=True, timeout=60,
        )  # fmt: skip


@contextmanager
def ray_head(
    cpus: int,
    address: str = "127.0.0.1",
    more: Mapping[str, str] | None = None,
    config: Mapping[str, object] | None = None,
    options: Sequence[str] = (),
    dashboard: bool = False,
) -> Iterator[RayHead]:
    """Start a cluster, with a token and a folder of its own, so that it meets no other.

    Args:
        cpus: logical CPUs.
        address: of this machine; other nodes must reach it.
        more: for the environment of the cluster and of its jobs.
        config: settings of Ray's own.
        options: of `ray start`.
        dashboard: whether it has one, to which jobs can be submitted; it takes eight processes.
    """
    port, dashboard_port, agent_port, metrics_port = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ,
            **(more or {}),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_raylet_start_wait_time_s": "120",
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("RAY_ADDRESS", None)
        command = [
            *("ray", "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}"),
            *(f"--node-ip-address={address}", f"--dashboard-port={dashboard_port}"),
            f"--dashboard-agent-listen-port={agent_port}",
            f"--metrics-export-port={metrics_port}",
            f"--include-dashboard={dashboard}",
            *("--disable-usage-stats", f"--system-config={json.dumps(dict(config or {}))}"),
            *options,
        ]
        log = Path(folder, "head.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        running = RayHead(
            {**environment, "RAY_ADDRESS": f"{address}:{port}"},
            f"http://127.0.0.1:{dashboard_port}",
            f"http://{address}:{metrics_port}/metrics",
        )
        try:
            wait_until(lambda: process.poll() or b"Ray runtime started" in log.read_bytes(), 180)
            assert process.poll() is None, log.read_text()
            yield running
        finally:
            for part in running.processes():
                with suppress(psutil.NoSuchProcess):  # gone with another one
                    part.kill()
            process.wait()


def _end_with_parent() -> None:
    """Where the tests are killed, their cluster must not go on."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def without_cluster() -> dict[str, str]:
    """The environment of a job that finds no cluster."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def command(process: psutil.Process) -> str:
    """The command line of a process; empty where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class Job:
    """A job as a process: `python -m jobs.…`."""

    def __init__(self, environment: dict[str, str], log: Path, *arguments: object) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *map(str, arguments)],
                cwd=PROJECT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text("utf-8", errors="replace")

    def finish(self, seconds: float = 200) -> int:
        """Wait for the end and give the exit status."""
        return self.process.wait(seconds)


def run_job(environment: dict[str, str], log: Path, *arguments: object) -> tuple[int, str]:
    """Run a job to its end: exit status and output."""
    with Job(environment, log, *arguments) as job:
        return job.finish(), job.output


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for a condition, not for a time; the time is when to give up."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds} s"
        time.sleep(0.02)


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """So many different ports: one that is let go may be the next one to be given.

    They lie below those that the system gives to connections, and above those of Ray's workers: else
    they may be taken before a server that starts slowly has them.
    """
    with ExitStack() as held:
        ports: set[int] = set()
        while len(ports) < count:
            port = 20_000 + secrets.randbelow(12_000)
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("", port))
                ports.add(port)
        return list(ports)
