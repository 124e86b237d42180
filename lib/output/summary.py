"""`summary.json` of a labelling: its counts, speed and versions."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Self

import pyarrow as pa

from lib.common.progress import duration
from lib.scoring.schema import NO_FACE, OK, STATUSES
from lib.storage.folder import Folder
from lib.storage.folder import folder as as_folder

FILE = "summary.json"
PACKAGES = ("ray", "tensorflow", "keras", "numpy", "pyarrow", "opencv-python-headless", "pillow")
TABLE_COLUMNS = (
    "uri", "status", "face_count", "age", "age_std", "gender", "gender_score", "certain", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """Counts and speed of a labelling.

    Attributes:
        images: rows of the manifest.
        skipped: files that the listing passed over, by reason.
        statuses: images by status.
        faces: faces found in all images.
        model: name and digest.
        seconds: from the start of the cluster to the last row, of the last start of this run.
        images_this_time: images labelled in these seconds; fewer than `images` after a resume.
        work_seconds: by kind of work, summed over all workers, of the last start.
        versions: of Python and the packages that decide about labels and speed.
    """

    images: int
    skipped: Mapping[str, int]
    statuses: Mapping[str, int]
    faces: int
    model: str
    seconds: float
    images_this_time: int
    work_seconds: Mapping[str, float]
    versions: Mapping[str, str] = field(
        default_factory=lambda: {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        }
    )

    @classmethod
    def read(cls, output: Folder) -> Self | None:
        """Read `summary.json`; None where there is none, or one of another version of this project."""
        try:
            found = json.loads(output.read(FILE))
            return cls(**{name.name: found[name.name] for name in fields(cls)})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    @property
    def error_rate(self) -> float:
        """Share of the images that could not be read."""
        good = sum(self.statuses.get(status, 0) for status in (OK, NO_FACE))
        return 1 - good / self.images

    @property
    def images_per_second(self) -> float:
        """Speed of the last start, its start-up included."""
        return self.images_this_time / self.seconds if self.seconds else 0.0

    def with_work_of_before(self, output: Folder) -> "Summary":
        """The same with the duration and speed of the last start that labelled images."""
        before = Summary.read(output)
        if before is None:
            return self
        return replace(
            self,
            seconds=before.seconds,
            images_this_time=before.images_this_time,
            work_seconds=before.work_seconds,
        )

    def write(self, output: Path | Folder) -> None:
        """Write `summary.json` into the output."""
        facts = {
            **vars(self),
            "error_rate": self.error_rate,
            "images_per_second": self.images_per_second,
        }
        as_folder(output).write(FILE, (json.dumps(facts, indent=2) + "\n").encode())

    def __str__(self) -> str:
        """The summary for people, on several lines."""
        lines = [
            f"{self.images:,} images, {self.faces:,} faces · model {self.model}",
            f"{self.images_this_time:,} labelled in {duration(self.seconds)}, "
            f"{self.images_per_second:.1f} images/s with start-up",
        ]
        lines += status_lines(self.statuses)
        if self.work_seconds:
            total = sum(self.work_seconds.values())
            shares = (f"{k} {100 * v / total:.0f}%" for k, v in self.work_seconds.items())
            lines.append(f"work of all workers: {' · '.join(shares)} of {duration(total)}")
        if self.skipped:
            passed_over = ", ".join(f"{n:,} × {reason}" for reason, n in self.skipped.items())
            lines.append(f"passed over by the listing: {passed_over}")
        return "\n".join(lines)


def status_lines(statuses: Mapping[str, int]) -> list[str]:
    """One line for each status, the most frequent first, with its count and meaning."""
    return [
        f"  {status:<15}{count:>12,}  {STATUSES[status]}"
        for status, count in sorted(statuses.items(), key=lambda item: -item[1])
    ]


def first_rows(labels: Path | Folder, rows: int = 10) -> str:
    """The first label rows by id, as a text table; of large results those of the first files."""
    folder = as_folder(labels)
    columns = ["id", *TABLE_COLUMNS]
    parts: list[pa.Table] = []
    for name in folder.files():
        if len(parts) < rows and sum(map(len, parts)) < 10_000:
            parts.append(folder.read_table(name, columns))
    if not parts:
        return "no rows"
    table = pa.concat_tables(parts).to_pandas()
    table = table.sort_values("id").head(rows)
    table["uri"] = table["uri"].map(lambda uri: uri.rsplit("/", 1)[-1])
    table["error"] = table["error"].fillna("")
    table["certain"] = table["certain"].map({True: "yes", False: "no"}).fillna("-")
    for name in ("uri", "error"):
        table[name] = table[name].map(_harmless)
    return table[list(TABLE_COLUMNS)].to_string(
        index=False, float_format=lambda value: f"{value:.2f}", na_rep="-"
    )


def _harmless(text: str) -> str:
    """Escape control characters, which file names may contain and terminals obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
