"""Command lines from frozen dataclasses, and errors of one line."""

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro
from tyro import _errors as tyro_errors

from lib.common import last_words, logs
from lib.common.errors import UserError

Options = TypeVar("Options")
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells give it: 128 and the number of the signal."""

log = logging.getLogger("job")

_URI = re.compile(r"[a-z][a-z0-9]+:/")


def parse(options: type[Options], arguments: Sequence[str] | None) -> Options:
    """Read a command line into a dataclass; its docstring is the help.

    Args:
        options: the dataclass; nested dataclasses become groups of options.
        arguments: without the program's name; None takes those of the process.

    Raises:
        UserError: an option is missing, unknown or has a bad value.
        SystemExit: help was asked for and has been shown.
    """
    program = f"python -m {_module_of(options)}"

    def refuse(event: tyro_errors.ParseErrorEvent) -> NoReturn:
        raise UserError(f"{_reason(event)}; `{program} --help` explains all options")

    with tyro_errors.on_parse_error(refuse), _ended_by_a_closed_pipe():
        parsed = tyro.cli(options, args=arguments, prog=program)
    for name, value in vars(parsed).items():
        # Options with URIs are strings; a `Path` with a scheme would become a local folder.
        if isinstance(value, Path) and _URI.match(str(value)):
            raise UserError(f"--{name.replace('_', '-')} takes no URI; give a local path")
    return parsed


def run(job: Callable[[], int], remedy: str = "give the same command again") -> NoReturn:
    """Run a job as a program and exit with its status.

    A `UserError` is one line on standard error and status 2; Ctrl-C and SIGTERM are one line and status
    130. A process that is killed, or ended by native code, leaves one line, too.

    Args:
        job: gives the exit status.
        remedy: how to continue after Ctrl-C.
    """
    logs.start()
    # Ray, which reads this on import, would connect for any late call of a thread that it left behind.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with last_words.left_behind(remedy):
        status = _status_of(job, remedy)
    if status == INTERRUPTED:
        # Threads that wait for a network would hold the end.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _status_of(job: Callable[[], int], remedy: str) -> int:
    try:
        return job()
    except KeyboardInterrupt:
        log.info("stopped; %s", remedy)
        return INTERRUPTED
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _module_of(options: type) -> str:
    """The job's module, such as `jobs.score`, also where it runs as `__main__`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if options.__module__ == "__main__" and spec else options.__module__


@contextmanager
def _ended_by_a_closed_pipe() -> Iterator[None]:
    """End silently when the reader of the output closes it, as in `--help | head`."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with last_words.not_due():
            yield
    finally:
        signal.signal(signal.SIGPIPE, before)


def _reason(event: tyro_errors.ParseErrorEvent) -> str:
    match event:
        case tyro_errors.MissingArgs(unrecognized_tokens=[_, *_] as tokens):
            return f"unknown option {' '.join(tokens)}"
        case tyro_errors.MissingArgs(missing_arguments=missing):
            names = (argument.arg.lowered.name_or_flags[0] for argument in missing)
            return f"missing {', '.join(names)}"
        case tyro_errors.UnrecognizedArgs(tokens=tokens):
            return f"unknown option {' '.join(tokens)}"
        case tyro_errors.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{_flag(argument)} cannot be {value!r}; choose from {', '.join(choices)}"
        case tyro_errors.BadValue(argument=argument):
            return f"{_flag(argument)} needs a value"
        case tyro_errors.InstantiationFailure(message=message, argument=argument):
            return f"{_flag(argument)}: {message.splitlines()[0]}" if argument else message
        case _:
            return "these options do not fit together"


def _flag(argument: object) -> str:
    return argument.lowered.name_or_flags[0]  # type: ignore[attr-defined]
