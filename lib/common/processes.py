"""Work in processes of this machine, which end with the one that started them."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from signal import SIG_IGN, SIGINT, signal
from threading import Thread
from typing import Any, TypeVar

from lib.common.errors import UserError

log = logging.getLogger("workers")

MOST_DEATHS = 2
"""How often processes that have ended are started again."""

THEY_END = "the worker processes end by themselves: is there enough memory?"

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], problem: str
) -> Iterator[Result]:
    """Do some work in a process for each core; where one is killed, its items are done again.

    Args:
        work: from an item to its result; travels to the processes.
        items: what is to be done.
        problem: what an `OSError` of the work means to the user.

    Yields:
        The results, in any order.

    Raises:
        UserError: the problem, and its reason; or processes end again and again.
    """
    left = dict(enumerate(items))
    deaths = 0
    while left:
        processes = min(len(os.sched_getaffinity(0)), len(left))
        with ProcessPoolExecutor(processes, get_context("spawn"), begin_process) as pool:
            places = {pool.submit(work, item): place for place, item in left.items()}
            try:
                for done in as_completed(places):
                    result = _result(done, problem)
                    del left[places[done]]
                    yield result
            except BrokenProcessPool:
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise UserError(THEY_END) from None
                log.warning("a worker process ended; others go on")
            except BaseException:
                # Also Ctrl-C, and what whoever takes the results raises: nobody wants the rest.
                for process in active_children():
                    process.kill()
                raise


def _result(done: Future[Result], problem: str) -> Result:
    try:
        return done.result()
    except OSError as error:
        raise UserError(f"{problem}: {error}") from None


def begin_process() -> None:
    """Let a process end with its parent: what a killed run leaves behind must not write any more."""
    signal(SIGINT, SIG_IGN)  # who started it ends it
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent: Any = parent_process()
    wait([parent.sentinel])
    os._exit(1)
