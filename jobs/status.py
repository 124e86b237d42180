"""How far a labelling has come, from its files alone: `python -m jobs.status --help`."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import tyro

from lib.common import options as command_line
from lib.common.progress import SPEED_OVER_SECONDS, duration, how_far
from lib.output.reader import FileCounts, Output
from lib.output.summary import status_lines
from lib.storage.options import S3Option, S3Options, StorageOptions


@dataclass(frozen=True)
class Options:
    """Tell how far a labelling has come, from its files alone, whether it is running or not.

    Attributes:
        output: What jobs.score had as --output.
    """

    output: Annotated[str, tyro.conf.Positional]
    s3: S3Option = field(default_factory=S3Options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count what has been written, and say it."""
    options = command_line.parse(Options, arguments)
    output = Output(options.output, StorageOptions(options.s3))
    manifest = output.manifest()
    if manifest is None:
        sys.stdout.write("the archive is being listed; no image has been labelled yet\n")
        return 0
    files = output.counts()
    done = sum(file.statuses.total() for file in files)
    # The end of a run merges files; the times of merged files say nothing about its speed.
    summary = output.summary()
    of_all = summary.images_per_second if summary else None
    speed = of_all if of_all and done >= manifest.images else recent_speed(files) or of_all
    sys.stdout.write(f"{report(files, manifest.images, speed, time.time())}\n")
    return 0


def report(files: Sequence[FileCounts], images: int, speed: float | None, now: float) -> str:
    """Put progress into words, on several lines.

    Args:
        files: what has been written.
        images: how many there are to label.
        speed: in images a second; None where it is unknown.
        now: in seconds since 1970.
    """
    statuses = sum((file.statuses for file in files), Counter[str]())
    lines = [how_far(statuses.total(), images, speed)]
    lines += status_lines(statuses)
    if files:
        last = max(file.written for file in files)
        moment = datetime.fromtimestamp(last, UTC)
        ago = duration(max(0, now - last))
        lines.append(f"last write {moment:%Y-%m-%d %H:%M:%S} UTC, {ago} ago")
    return "\n".join(lines)


def recent_speed(files: Sequence[FileCounts]) -> float | None:
    """Images a second in the minute before the last write; None where one file is all there is.

    The first file of that minute only marks its beginning: when its rows were begun is unknown.
    """
    last = max((file.written for file in files), default=0.0)
    recent = [file for file in files if file.written >= last - SPEED_OVER_SECONDS]
    first = min((file.written for file in recent), default=0.0)
    rows = sum(file.statuses.total() for file in recent if file.written > first)
    return rows / (last - first) if last > first else None


if __name__ == "__main__":
    command_line.run(main)
