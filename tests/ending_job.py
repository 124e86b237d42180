"""A job for the tests of how jobs end and wait: `python -m tests.ending_job HOW`."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lib.common import options

DEATHS, SEEN = 2, ".seen"
LONG, EVERY_SECONDS = ("actors", "group", "tasks", "deaths"), 3.0
"""Those that wait, and the time between two lines that say for what: users get them every 30 seconds."""
REMEDY = "give the same command again"


def job() -> int:
    how = sys.argv[1]
    if how == "exit":
        os._exit(1)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "crash":
        ctypes.string_at(0)
    if how == "end":
        return 3
    return on_a_cluster(how)


def late(wait: Callable[..., Any]) -> None:
    """Let the calls of Ray Data's prefetching thread come a second late, as on a busy machine."""
    import ray

    def later(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread().name == "Prefetcher":
            time.sleep(1)
        return wait(*arguments, **options)

    ray.wait = later


def interrupted_with(batches: Iterator[Any]) -> None:
    """Ctrl-C comes while a function that its traceback has in it holds an iterator of Ray Data."""
    next(batches)
    raise KeyboardInterrupt


def on_a_cluster(how: str) -> int:
    import ray
    import ray.data
    from ray.util.placement_group import placement_group

    from lib.scoring import connection, engine

    if how in LONG:
        connection.EVERY_SECONDS = EVERY_SECONDS

    class Same:
        def __call__(self, batch: Any) -> Any:
            return batch

    class Dying:
        """Ends twice, then waits until a test has seen that."""

        def __init__(self, note: str) -> None:
            self._note = Path(note)

        def __call__(self, batch: Any) -> Any:
            deaths = len(self._note.read_text()) if self._note.exists() else 0
            if deaths < DEATHS:
                self._note.write_text("." * (deaths + 1))
                os.kill(os.getpid(), signal.SIGKILL)
            while not self._note.with_suffix(SEEN).exists():
                time.sleep(0.1)
            return batch

    with engine.failures_in_one_line(REMEDY), engine.cluster() as resources:
        match how:
            case "connect" | "leave":
                with engine.cluster() as same:
                    assert same["CPU"] == resources["CPU"]
                assert ray.is_initialized()
                print("CPUs", resources["CPU"])  # noqa: T201
            case "hold":
                held = placement_group([{"CPU": 1}])
                ray.get(held.ready())
                print("held", flush=True)  # noqa: T201
                time.sleep(300)
            case "actors":
                rows = ray.data.range(8).map_batches(Same, compute=engine.pool(1, 1), num_cpus=1)
                assert rows.count() == 8
            case "group":
                ray.get(placement_group([{"CPU": 0.5}, {"CPU": 0.5}]).ready())
            case "deaths":
                rows = ray.data.range(1).map_batches(
                    Dying, compute=engine.pool(1, 1), num_cpus=0, fn_constructor_args=(sys.argv[2],)
                )
                assert rows.count() == 1
            case "tasks":
                assert sum(engine.tasks(lambda item: item, [1, 2], "no number")) == 3
            case "prefetch":
                late(ray.wait)
                for batch in ray.data.range(64, override_num_blocks=4).iter_batches(batch_size=8):
                    assert len(batch["id"]) == 8
            case "interrupt":
                numbers = ray.data.range(64, override_num_blocks=4)
                interrupted_with(iter(numbers.iter_batches(batch_size=8)))
            case "abort":
                os.abort()
    if how == "prefetch":
        for thread in threading.enumerate():
            if thread is not threading.main_thread():
                thread.join(10)
        print("connected" if ray.is_initialized() else "left")  # noqa: T201
    if how == "leave":
        print("left", flush=True)  # noqa: T201
        time.sleep(300)
    return 0


if __name__ == "__main__":
    options.run(job, REMEDY)
