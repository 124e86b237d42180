"""One line where a job's process ends without a word: killed, or ended by native code."""

import faulthandler
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.common import native_output

OVER, BEGUN, LOGS = "over", "begun", "logs"
"""What the job writes to its watcher: no line is due any more, or again; the folder of its logs."""

# A shell, because it needs a millisecond and a megabyte. Its input ends when the job's process does.
WATCHER = r"""
trap '' HUP INT TERM
over= logs=
short_of_memory=$(grep oom_kill /proc/vmstat 2> /dev/null)
while read -r what folder; do
  case $what in over) over=yes ;; begun) over= ;; logs) logs=", $folder" ;; esac
done
[ "$over" ] && exit
said=$(grep -a -m 1 -E 'Check failed|Fatal Python error' "$1" || tail -n 1 "$1")
why="killed, or ended by native code"
[ "$short_of_memory" = "$(grep oom_kill /proc/vmstat 2> /dev/null)" ] ||
  why="killed for lack of memory"
details="$1$logs"
[ -s "$1" ] || { rm -f "$1"; details=${logs#, }; }
printf 'error: the process of the job was %s%s; %s%s\n' \
  "$why" "${said:+: $said}" "$2" "${details:+; details: $details}" >&2
"""

_watcher: subprocess.Popen[str] | None = None


@contextmanager
def left_behind(remedy: str) -> Iterator[None]:
    """Let another process say in one line that this one ended without a word.

    That line names what native code said last, and where the logs are. A process that leaves this block,
    by an exception too, leaves no line.

    Args:
        remedy: what the user can do then.
    """
    global _watcher
    descriptor, kept = tempfile.mkstemp(prefix="job-", suffix=".log")
    os.close(descriptor)
    native_output.kept_in = kept
    # Ctrl-C and what ends all processes of a terminal must not end it before the job.
    with (
        Path(kept).open("a") as file,
        subprocess.Popen(
            ["sh", "-c", WATCHER, "sh", kept, remedy],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, text=True,
        ) as _watcher,
    ):  # fmt: skip
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            faulthandler.disable()
            _tell(OVER)
            _watcher = None
            native_output.kept_in = os.devnull
            Path(kept).unlink(missing_ok=True)


@contextmanager
def not_due() -> Iterator[None]:
    """Leave no line where the process is ended within this block."""
    _tell(OVER)
    yield
    _tell(BEGUN)


def logs_are_in(folder: str) -> None:
    """Name the folder of the logs, for the line that is left behind."""
    _tell(f"{LOGS} {folder}")


def _tell(line: str) -> None:
    if _watcher is None:
        return
    assert _watcher.stdin is not None
    with suppress(BrokenPipeError):  # something has ended the watcher
        _watcher.stdin.write(f"{line}\n")
        _watcher.stdin.flush()
