"""A page about the labels of an archive: `python -m jobs.report --help`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.common import options as command_line
from lib.common.errors import UserError
from lib.output.reader import Output
from lib.scoring.schema import NO_FACE, OK, STATUSES
from lib.storage.options import StorageOption, StorageOptions

WITH_FACE, WITHOUT_FACE, EACH_ERROR = 60, 8, 4
"""Images of the gallery, by status."""
ANNOTATED_SIDE = 1600
"""Longest side of annotated pictures, in pixels."""


@dataclass(frozen=True)
class Options:
    """Write one HTML page about the labels of an archive, which shows them without any network.

    Attributes:
        labels: What jobs.score had as --output.
        output: The page; an earlier one is overwritten. Its folder is made if need be.
        annotate: Also write N pictures with boxes and labels drawn on, as ID.jpg into a folder beside
            the page: report-pictures/ for report.html.
    """

    labels: str
    output: Path = Path("report.html")
    annotate: int | None = None
    storage: StorageOption = field(default_factory=StorageOptions)

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: names the option and the value.
        """
        if self.annotate is not None and self.annotate < 1:
            raise UserError(f"--annotate must be at least 1, not {self.annotate}")
        if self.output.is_dir() or self.output.suffix not in (".html", ".htm"):
            raise UserError(f"--output must be a file that ends in .html, not {str(self.output)!r}")

    @property
    def pictures(self) -> Path:
        """The folder of the annotated pictures."""
        return self.output.with_name(f"{self.output.stem}-pictures")


def main(arguments: Sequence[str] | None = None) -> int:
    """Count all rows, draw a sample of them, write the page."""
    options = command_line.parse(Options, arguments)
    options.check()
    output = Output(options.labels, options.storage)
    # matplotlib and SciPy take a second to import, so wrong options are refused before.
    from lib.report.gallery import Originals, gallery, rows_at, write_annotated
    from lib.report.label_statistics import label_statistics
    from lib.report.page import Report, html

    sizes = dict.fromkeys(STATUSES, EACH_ERROR)
    sizes |= {OK: max(WITH_FACE, options.annotate or 0), NO_FACE: WITHOUT_FACE}
    statistics = label_statistics(output, sizes)
    shown = [place for status in STATUSES for place in statistics.sample(status)[:WITH_FACE]]
    rows = rows_at(output, shown)
    page = html(Report(output, statistics, gallery(rows, Originals(output, rows))))
    write(options.output, page)
    sys.stdout.write(f"report: {options.output}\n")
    if options.annotate:
        rows = rows_at(output, statistics.sample(OK)[: options.annotate])
        written = write_annotated(rows, Originals(output, rows), ANNOTATED_SIDE, options.pictures)
        sys.stdout.write(f"annotated pictures: {written} in {options.pictures}\n")
    return 0


def write(file: Path, page: str) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, "utf-8")
    except OSError as error:
        raise UserError(f"cannot write --output {str(file)!r}: {error.strerror}") from None


if __name__ == "__main__":
    command_line.run(main)
