"""Signals that another library handles."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def watched_signals() -> Iterator[Callable[[], bytes]]:
    """Record signals whatever handles them; yields a function that returns the numbers of new ones."""
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)

        def arrived() -> bytes:
            with suppress(BlockingIOError):
                return here.recv(4096)
            return b""

        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        try:
            yield arrived
        finally:
            signal.set_wakeup_fd(before)
