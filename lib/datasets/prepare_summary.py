"""`summary.json` of jobs.prepare: counts of the kept and the dropped rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from lib.common.progress import duration
from lib.datasets.labels import SPLITS
from lib.datasets.rules import REASONS

FILE = "summary.json"


@dataclass(frozen=True)
class ImageCounts:
    """Images that belong to no kept row.

    Attributes:
        unnamed: images that the metadata does not name.
        repeated: images that came after another one under the same name, and were passed over.
        damage: tars that could be read only in part: where, and why.
    """

    unnamed: int = 0
    repeated: int = 0
    damage: Sequence[str] = ()


@dataclass(frozen=True)
class PrepareSummary:
    """Counts of the rows of a data set.

    Attributes:
        rows: of the metadata.
        splits: rows that are kept by split; where only the metadata was looked at, under "kept".
        dropped: rows by the rule that drops them; every rule is there.
        images: images that belong to no kept row.
        seconds: duration of the last start of the run.
    """

    rows: int
    splits: Mapping[str, int]
    dropped: Mapping[str, int]
    images: ImageCounts
    seconds: float

    @classmethod
    def of(cls, cleaned: pa.Table, images: ImageCounts, seconds: float) -> Self:
        """Count the rows.

        Args:
            cleaned: every row of the metadata, with the column rule, and split if there are splits.
            images: images that belong to no kept row.
            seconds: duration of the run.
        """
        rules = _counts(cleaned, "rule")
        kept = rules.pop(None, 0)
        splits = _counts(cleaned, "split") if "split" in cleaned.column_names else None
        return cls(
            rows=cleaned.num_rows,
            splits={"kept": kept} if splits is None else {s: splits.get(s, 0) for s in SPLITS},
            dropped={rule: rules.get(rule, 0) for rule in REASONS},
            images=images,
            seconds=seconds,
        )

    def write(self, output: Path) -> None:
        """Write `summary.json` into the output, completely or not at all."""
        text = json.dumps({**asdict(self), "kept": self.kept}, indent=2, ensure_ascii=False)
        unfinished = output / f"{FILE}.tmp"
        unfinished.write_text(text + "\n", "utf-8")
        unfinished.replace(output / FILE)

    @property
    def kept(self) -> int:
        """Rows that are kept."""
        return sum(self.splits.values())

    def __str__(self) -> str:
        """The summary for people, on several lines."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield (
            f"{self.rows:,} rows: {self.kept:,} kept, {self.rows - self.kept:,} dropped, "
            f"in {duration(self.seconds)}"
        )
        yield from (f"  {split:<20}{count:>10,}" for split, count in self.splits.items())
        yield from (
            f"  {rule:<20}{count:>10,}  {REASONS[rule]}" for rule, count in self.dropped.items()
        )
        if self.images.unnamed:
            yield f"images not in the metadata: {self.images.unnamed:,}"
        if self.images.repeated:
            yield f"images under a name that another one had before: {self.images.repeated:,}"
        yield from (f"read only in part: {damage}" for damage in self.images.damage)


def kept_in(output: Path) -> int:
    """How many rows the summary of an output says are kept."""
    return int(json.loads((output / FILE).read_text("utf-8"))["kept"])


def _counts(table: pa.Table, column: str) -> dict[str | None, int]:
    return {pair["values"]: pair["counts"] for pair in table[column].value_counts().to_pylist()}
