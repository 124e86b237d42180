"""Trying again: what storage does now and then, and what passes by itself."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

ATTEMPTS = 9
"""With the pauses below these last 24 to 48 seconds, longer than a server takes to start again."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 16.0
GIVE_UP_AFTER_TIMEOUTS = 4
"""An object that stalls again and again would otherwise hold a worker for `ATTEMPTS` timeouts."""


class Transient(Exception):  # noqa: N818 - a word that explains itself
    """A failure that may pass; the message is one line for people."""


def pause_seconds(failures: int) -> float:
    """How long to wait after that many failures: twice as long each time, half of it by chance.

    The chance keeps workers that failed together from coming back together. ("Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015: "equal jitter".)
    """
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
    return longest * random.uniform(0.5, 1)


def retrying(
    operation: Callable[[], Result],
    timeout: float,
    wait: Callable[[float], object] = time.sleep,
) -> Result:
    """Run an operation until it does not fail with `Transient`.

    Args:
        operation: to run; it watches its own time.
        timeout: seconds that the operation may take; after four times that it is not tried again,
            unless it fails faster than that (a server that is down refuses at once).
        wait: for tests.

    Raises:
        Transient: the last failure, with the number of attempts.
    """
    working = 0.0
    for attempt in range(1, ATTEMPTS + 1):
        started = time.monotonic()
        try:
            return operation()
        except Transient as failure:
            working += time.monotonic() - started
            if attempt == ATTEMPTS or working >= GIVE_UP_AFTER_TIMEOUTS * timeout:
                raise Transient(f"{failure} (tried {attempt} times)") from None
        wait(pause_seconds(attempt))
    raise AssertionError("unreachable")
