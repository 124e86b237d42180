"""Where a job's cluster is, whether it answers, and what the job waits for there."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

import ray

from lib.common.errors import UserError

log = logging.getLogger("cluster")

ANSWERS_WITHIN_SECONDS = 10.0
EVERY_SECONDS = 30.0
"""Time between two lines about what is waited for."""
MOST = 1000
"""Things of a kind that are looked at."""
SHORT_OF_MEMORY = (
    "Ray has killed them for lack of memory; give the machines more, or run fewer workers on each"
)
LOCAL = "local"
"""The address of a cluster that the job starts for itself."""

_HEALTH = "/grpc.health.v1.Health/Check"


def cluster_address() -> str:
    """The address of the cluster that the environment names; `LOCAL` if it names none.

    Without a name Ray would take the address that the last `ray start` on this machine has left in a
    file, and try it for many minutes where that cluster has ended.
    """
    return os.environ.get("RAY_ADDRESS") or LOCAL


def check_address(address: str) -> None:
    """Ask the head of a cluster for its health; Ray itself would try again for a quarter of an hour.

    Args:
        address: `host:port`, `auto` or `LOCAL`; only the first one is checked.

    Raises:
        UserError: no head of a cluster answers there, or the address is of another kind.
    """
    if address in ("auto", LOCAL):
        return
    if "://" in address or not address.rpartition(":")[2].isdecimal():
        raise UserError(
            f"RAY_ADDRESS={address} cannot be used; give HOST:PORT of the cluster's head, or submit "
            "the job with `ray job submit`"
        )
    if reason := _no_answer(address):
        raise UserError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({reason}); start its head with `ray "
            "start --head`, give the HOST:PORT that it prints, or unset RAY_ADDRESS to run on this "
            "machine alone"
        )


def _no_answer(address: str) -> str | None:
    """Why there is no head of a cluster; None if there is one."""
    # Only jobs on a cluster need it.
    import grpc

    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return None  # it answers only to the certificates of the cluster
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_HEALTH)(b"", timeout=ANSWERS_WITHIN_SECONDS)
        except grpc.RpcError as error:
            match error.code():
                case grpc.StatusCode.UNAUTHENTICATED:
                    return None  # Ray will say what it misses
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    return f"silent for {ANSWERS_WITHIN_SECONDS:g} s"
                case grpc.StatusCode.UNIMPLEMENTED:
                    return "another port of Ray's"
                case _:
                    return error.details().rpartition(": ")[2]
    return None


@contextmanager
def waits_said(address: str) -> Iterator[None]:
    """Say every 30 seconds what the job waits for, and how many of its workers have ended.

    While it connects, and as long as it runs.

    Args:
        address: of the cluster; of one that the job has for itself nothing is said.
    """
    if address == LOCAL:
        yield
        return
    over = Event()
    thread = Thread(target=_say_waits, args=(address, over), name="waits", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _say_waits(address: str, over: Event) -> None:
    before: dict[str, str] = {}
    ended = ended_before = 0
    said = time.monotonic()
    while not over.wait(EVERY_SECONDS / 2):
        line = f"waiting for the cluster at {address} to let the job in"
        if ray.is_initialized():
            try:
                now = _missing()
                # What is missing at one look only is just being started.
                still = Counter(what for one, what in now.items() if one in before)
                line = waiting_line(still, ray.cluster_resources(), ray.available_resources())
                ended = _ended()
                if ended > ended_before:
                    line = ending_line(ended - ended_before, _killed_for_memory()) or line
            except Exception:  # of many kinds; the job itself meets what is wrong with the cluster
                log.debug("the cluster does not say what waits", exc_info=True)
                continue
            before = now
        if line and time.monotonic() - said >= EVERY_SECONDS:
            said = time.monotonic()
            ended_before = ended
            log.warning("%s", line)


def waiting_line(
    missing: Mapping[str, int], there: Mapping[str, float], free: Mapping[str, float]
) -> str:
    """What a job waits for, in one line; empty if for nothing.

    Args:
        missing: how many of each thing, such as `worker of 1 CPU`.
        there: the resources of the cluster.
        free: those of them that nobody uses.
    """
    if not missing:
        return ""
    asked = ", ".join(f"{count} x {what}" for what, count in missing.items())
    return f"waiting for room: {asked}; the cluster has {_words(there)}, free {_words(free)}"


def ending_line(ended: int, short_of_memory: bool) -> str:
    """That workers have ended, in one line."""
    line = f"worker processes that have ended and are started again: {ended}"
    return f"{line}; {SHORT_OF_MEMORY}" if short_of_memory else line


def _ended() -> int:
    """Workers of this job that have ended and were started again."""
    from ray.util import state

    job = ray.get_runtime_context().get_job_id()
    actors = state.list_actors(filters=[("job_id", "=", job)], detail=True, limit=MOST, timeout=5)
    return sum(actor.num_restarts or 0 for actor in actors)


def _killed_for_memory() -> bool:
    """Whether Ray has killed the worker that has ended last, of any job, for lack of memory."""
    from ray.util import state

    workers = state.list_workers(
        filters=[("is_alive", "=", False)], detail=True, limit=MOST, timeout=5
    )
    last = max(workers, key=lambda worker: worker.end_time_ms or 0, default=None)
    return last is not None and is_for_memory(last.exit_detail or "")


def is_for_memory(text: str) -> bool:
    """Whether Ray says that it has killed something for lack of memory."""
    return "killing policy" in text or "out of memory" in text.lower()


def _missing() -> dict[str, str]:
    """What this job has asked for and does not have, in words, by id."""
    from ray.util import state

    job = ray.get_runtime_context().get_job_id()
    waits: dict[str, str] = {}
    for actor in state.list_actors(
        filters=[("job_id", "=", job), ("state", "=", "PENDING_CREATION")],
        detail=True, limit=MOST, timeout=5,
    ):  # fmt: skip
        waits[actor.actor_id] = f"worker of {_words(actor.required_resources or {})}"
    for group in state.list_placement_groups(
        filters=[("creator_job_id", "=", job), ("state", "=", "PENDING")],
        detail=True, limit=MOST, timeout=5,
    ):  # fmt: skip
        workers = Counter(_words(bundle["unit_resources"]) for bundle in group.bundles or [])
        each = ", ".join(f"{count} of {words}" for words, count in workers.items())
        waits[group.placement_group_id] = f"group of workers ({each})"
    if waits:
        return waits
    tasks = state.list_tasks(
        filters=[("job_id", "=", job), ("type", "=", "NORMAL_TASK"), ("state", "!=", "FINISHED")],
        detail=True, limit=MOST, timeout=5, raise_on_missing_output=False,
    )  # fmt: skip
    if any(task.state == "RUNNING" for task in tasks):
        return {}
    return {
        task.task_id: f"task of {_words(task.required_resources or {})}"
        for task in tasks
        if task.state == "PENDING_NODE_ASSIGNMENT"
    }


def _words(resources: Mapping[str, float]) -> str:
    """CPUs, GPUs and memory in words: `2 CPU, 1 GPU`."""
    parts = []
    for name in ("CPU", "GPU"):
        if name in resources:
            parts.append(f"{round(resources[name], 2):g} {name}")
    if "memory" in resources:
        parts.append(f"{resources['memory'] / 2**30:.1f} GiB")
    return ", ".join(parts) or "no CPU"
