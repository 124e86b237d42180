"""Retries of transient storage failures."""

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from lib.storage.errors import PlaceError

Result = TypeVar("Result")

ATTEMPTS = 9
"""With the pauses below these take 24 to 48 seconds, longer than a restart of a server."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 16.0
GIVE_UP_AFTER_TIMEOUTS = 4
"""Limits the time that a stalling object holds a worker."""


class Transient(Exception):  # noqa: N818 - the usual word
    """A failure that may pass; the message is one line for users.

    Attributes:
        of_place: whether it concerns a whole server.
    """

    def __init__(self, message: str, of_place: bool = False) -> None:
        super().__init__(message)
        self.of_place = of_place

    def as_os_error(self) -> OSError:
        """The same where nothing is tried any more."""
        return (PlaceError if self.of_place else OSError)(errno.EIO, str(self))


def pause_seconds(failures: int) -> float:
    """Seconds to wait after that many failures: exponential backoff with equal jitter.

    The jitter spreads the retries of workers that failed together. ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015.)
    """
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
    return longest * random.uniform(0.5, 1)


def retrying(
    operation: Callable[[], Result],
    timeout: float,
    attempts: int = ATTEMPTS,
    wait: Callable[[float], object] = time.sleep,
) -> Result:
    """Run an operation until it does not fail with `Transient`.

    Args:
        operation: to run; it enforces its own timeout.
        timeout: seconds that the operation may take; there is no retry after
            `GIVE_UP_AFTER_TIMEOUTS` times that.
        attempts: at most.
        wait: sleeps; replaced in tests.

    Raises:
        Transient: the last failure, with the number of attempts.
    """
    working = 0.0
    for attempt in range(1, attempts + 1):
        started = time.monotonic()
        try:
            return operation()
        except Transient as failure:
            working += time.monotonic() - started
            if attempt == attempts or working >= GIVE_UP_AFTER_TIMEOUTS * timeout:
                raise Transient(f"{failure} (tried {attempt} times)", failure.of_place) from None
        wait(pause_seconds(attempt))
    raise AssertionError("unreachable")
