"""Logs of a job: lines for people, or a JSON object a line for machines."""

import json
import logging
import sys
from datetime import UTC, datetime

FACTS = "facts"
"""Name of what a record says besides its words: `log.info(…, extra={FACTS: {…}})`."""


def start() -> None:
    """Write what is logged to standard error, as lines for people."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_ToStandardError()])


def as_json(run: str) -> None:
    """Write JSON from now on: time, level, logger, run, message, and the facts of a record.

    Args:
        run: id of the run, which stands in every line.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _ToStandardError):
            handler.setFormatter(_JsonLine(run))


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
    """Writes to what standard error is at the time: while a cluster runs, it is another stream."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")
        sys.stderr.flush()
