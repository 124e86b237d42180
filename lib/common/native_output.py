"""What native code writes to the terminal by itself, past Python's logging."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def native_errors_hidden() -> Iterator[None]:
    """Discard what native code writes to standard error; Python's own messages still arrive."""
    sys.stderr.flush()
    terminal = os.dup(2)
    stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(terminal), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        sys.stderr.close()
        sys.stderr = stderr
