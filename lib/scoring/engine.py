"""Ray's set-up for the jobs: connection, environment, quiet logs."""

import contextlib
import logging
import os
import signal
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

# Ray Data, which reads this on import, reports its usage in a process that takes seconds to start.
os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")

import ray
import ray.data
import ray.util.metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lib.common import last_words
from lib.common.errors import UserError
from lib.common.native_output import native_errors_hidden
from lib.scoring.connection import (
    LOCAL,
    SHORT_OF_MEMORY,
    check_address,
    cluster_address,
    is_for_memory,
    waits_said,
)
from lib.scoring.rows import Block
from lib.scoring.telemetry import STAGE_SECONDS

Item = TypeVar("Item")
Result = TypeVar("Result")

PREFETCHED_WITHIN_SECONDS = 5.0
"""For Ray Data's prefetching threads to end: their calls are shorter, and without work they make none."""

_logs = "/tmp/ray/session_latest/logs"
"""Of the cluster that the job was connected to last."""


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, float]]:
    """Connect to the cluster of the job or the environment, else start one here for the while.

    Within another such block it is the same cluster, by the same connection.

    Yields:
        The cluster's resources by name.

    Raises:
        UserError: no cluster answers at the address of the environment.
    """
    global _logs
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\.")
    # A worker without a GPU would see all of them, and take memory of each.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # In a submitted job the address is set, and everything else is the cluster's to say.
    own: dict[str, Any] = {}
    address = cluster_address()
    if address == LOCAL:
        own = {"address": LOCAL, "include_dashboard": False}
        # A cluster of one job needs no metrics, and each process of Ray takes time to gather them.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    # Ray's native code writes over the progress even of what it mends; its logs have all of it, too.
    with native_errors_hidden():
        try:
            with waits_said(address):
                check_address(address)
                session: Any = ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
                _logs = f"{session.address_info['session_dir']}/logs"
                last_words.logs_are_in(_logs)
                # Ray has just taken SIGTERM for itself; every signal stops a job in the same way.
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                logging.getLogger("ray.data").setLevel(logging.ERROR)
                context = ray.data.DataContext.get_current()
                context.enable_progress_bars = False  # the jobs have their own
                # Every worker would add up its pages each second, for a figure that no job reads.
                context.memory_usage_poll_interval_s = None
                yield ray.cluster_resources()
        except BaseException as error:
            _clear_frames(error)
            raise
        finally:
            _wait_for_prefetching()
            ray.shutdown()
            # It has just given SIGTERM back to the system, which ends the process without a word.
            signal.signal(signal.SIGTERM, signal.default_int_handler)


def _clear_frames(last: BaseException) -> None:
    """Let go what the frames of an error hold: iterators of Ray Data then end their work, with Ray."""
    error: BaseException | None = last
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _wait_for_prefetching() -> None:
    """Let the threads end that Ray Data only stops: a call after the shutdown would fail, or connect."""
    for thread in threading.enumerate():
        if thread.name == "Prefetcher":
            thread.join(PREFETCHED_WITHIN_SECONDS)


def machines() -> list[dict[str, float]]:
    """The resources of each machine that is there now, by name."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def tasks(work: Callable[[Item], Result], items: Sequence[Item], problem: str) -> Iterator[Result]:
    """Do some work in tasks of Ray Data, as many at a time as there are CPUs.

    Args:
        work: from an item to its result.
        items: at least one.
        problem: what an `OSError` of the work means to the user.

    Yields:
        The results, in any order.

    Raises:
        UserError: the problem, and its reason.
    """

    def task(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"outcome": work(row["item"])}
        except OSError as error:
            return {"outcome": error}

    rows = ray.data.from_items(list(items), override_num_blocks=len(items))
    for row in rows.map(task, num_cpus=1).iter_rows():
        if isinstance(row["outcome"], OSError):
            raise UserError(f"{problem}: {row['outcome']}")
        yield row["outcome"]


def pool(least: int, most: int, at_a_time: int = 1) -> ray.data.ActorPoolStrategy:
    """A pool of workers that grows while it has more to do than it can, and there is room.

    Each works on `at_a_time` blocks, in as many threads, and has one more waiting: few enough that none
    idles at the end.
    """
    return ray.data.ActorPoolStrategy(
        min_size=least,
        max_size=most,
        max_tasks_in_flight_per_actor=at_a_time + 1,
        max_concurrent_calls_per_actor=at_a_time,
        enable_true_multi_threading=at_a_time > 1,
    )


@contextlib.contextmanager
def failures_in_one_line(remedy: str) -> Iterator[None]:
    """Turn what stops a run into one line; the way through Ray is in the logs of its session.

    Args:
        remedy: what the user can do then.

    Raises:
        UserError: in place of every other error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        last = lines[-1] if lines else type(error).__name__
        if is_for_memory(str(error)):
            last = f"its workers have ended: {SHORT_OF_MEMORY}"
        ours = f"{UserError.__module__}.{UserError.__name__}: "
        if last.startswith(ours):  # of a worker
            raise UserError(f"the run stopped: {last.removeprefix(ours)}; then {remedy}") from error
        raise UserError(f"the run stopped: {last}; {remedy}; {_logs} has the details") from error


def beside_the_job() -> dict[str, Any]:
    """Options of an actor that must live as long as the job: other machines may be lost."""
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


@ray.remote(num_cpus=0)
class _RunState:
    def __init__(self, run: str) -> None:
        self._seconds: Counter[str] = Counter()
        self._lines: dict[str, bool] = {}
        self._begun: Counter[Block] = Counter()
        self._metric = ray.util.metrics.Counter(
            STAGE_SECONDS, "Seconds of work of all workers, by kind", tag_keys=("run", "stage")
        )
        self._metric.set_default_tags({"run": run})

    def add(self, seconds: dict[str, float]) -> None:
        self._seconds.update(seconds)
        for stage, value in seconds.items():
            if value > 0:
                self._metric.inc(value, tags={"stage": stage})

    def total(self) -> dict[str, float]:
        return dict(self._seconds)

    def say(self, line: str) -> None:
        self._lines.setdefault(line, False)

    def new_lines(self) -> list[str]:
        lines = [line for line, taken in self._lines.items() if not taken]
        self._lines.update(dict.fromkeys(lines, True))
        return lines

    def begun(self, block: Block) -> int:
        before = self._begun[block]
        self._begun[block] += 1
        return before

    def done(self, block: Block) -> None:
        del self._begun[block]


class RunState:
    """What the workers of a run have in common: it travels to them, and what they tell it comes together.

    Seconds by kind of work (a metric, too), lines for the log, and which blocks they have begun.

    Args:
        run: id of the run.
    """

    def __init__(self, run: str) -> None:
        actor: Any = _RunState
        self._actor = actor.options(**beside_the_job()).remote(run)

    def add(self, seconds: dict[str, float]) -> None:
        """Add what one worker took for one batch; does not wait."""
        self._actor.add.remote(seconds)

    def total(self) -> dict[str, float]:
        """All seconds so far."""
        return ray.get(self._actor.total.remote())

    def say(self, line: str) -> None:
        """Say a line to the user; does not wait."""
        self._actor.say.remote(line)

    def new_lines(self) -> list[str]:
        """Lines that were not taken before, each once, however many workers said it."""
        return ray.get(self._actor.new_lines.remote())

    def begun(self, block: Block) -> int:
        """A worker begins a block; gives how often one has, and has not come to its end."""
        return ray.get(self._actor.begun.remote(block))

    def done(self, block: Block) -> None:
        """It has come to its end."""
        self._actor.done.remote(block)
