"""Logs of a job: lines for people, or one JSON object per line for machines."""

import json
import logging
import sys
from datetime import UTC, datetime

FACTS = "facts"
"""Name of the structured values of a record: `log.info(…, extra={FACTS: {…}})`."""


def start() -> None:
    """Log to standard error, as lines for people; of other packages only what they warn of."""
    handler = _ToStandardError()
    handler.addFilter(_matters)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def as_json(run: str) -> None:
    """Log JSON from now on: time, level, logger, run, message, and the `FACTS` of a record.

    Args:
        run: id of the run, a field of every line.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _ToStandardError):
            handler.setFormatter(_JsonLine(run))


def _matters(record: logging.LogRecord) -> bool:
    # botocore says where it found credentials, matplotlib that it looked for fonts.
    return record.levelno >= logging.WARNING or "site-packages" not in record.pathname


class _JsonLine(logging.Formatter):
    def __init__(self, run: str) -> None:
        super().__init__()
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "run": self._run,
            "message": record.getMessage(),
            **getattr(record, FACTS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _ToStandardError(logging.Handler):
    """Writes to the current `sys.stderr`, which is another stream while a cluster runs."""

    def emit(self, record: logging.LogRecord) -> None:
        # On a terminal, over the line of the progress.
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{start}{self.format(record)}\n")
        sys.stderr.flush()
