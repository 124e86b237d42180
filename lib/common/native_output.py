"""What native code writes to the terminal by itself, past Python's logging."""

import contextlib
import os
import sys
from collections.abc import Iterator

kept_in = os.devnull
"""File to which hidden output is appended."""


@contextlib.contextmanager
def native_errors_hidden() -> Iterator[None]:
    """Hide what native code writes to standard error; Python's own messages still arrive."""
    sys.stderr.flush()
    terminal = os.dup(2)
    stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(terminal), "w", buffering=1)
    hidden = os.open(kept_in, os.O_WRONLY | os.O_APPEND)
    os.dup2(hidden, 2)
    os.close(hidden)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        # Not closed: a logger that was made meanwhile keeps it.
        sys.stderr.flush()
        sys.stderr = stderr
