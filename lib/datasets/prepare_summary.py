"""`summary.json`: what became of the rows of a data set."""

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
class ImageTally:
    """What there was besides the rows.

    Attributes:
        unnamed: images that the metadata does not name.
        repeated: images that came after another one under the same name, and were passed over.
        damage: tars that could be read only in part: where, and why.
    """

    unnamed: int = 0
    repeated: int = 0
    damage: Sequence[str] = ()


@dataclass(frozen=True)
class Tally:
    """What became of the rows of a data set.

    Attributes:
        rows: of the metadata.
        splits: rows that are kept by split; where only the metadata was looked at, under "kept".
        dropped: rows by the rule that drops them; every rule is there.
        images: what there was besides the rows.
        seconds: that the run took; of a run that went on, its last start.
    """

    rows: int
    splits: Mapping[str, int]
    dropped: Mapping[str, int]
    images: ImageTally
    seconds: float

    @classmethod
    def of(cls, judged: pa.Table, images: ImageTally, seconds: float) -> Self:
        """Count.

        Args:
            judged: every row of the metadata, with the column rule, and split if there are splits.
            images: what there was besides.
            seconds: that the run took.
        """
        rules = _counts(judged, "rule")
        kept = rules.pop(None, 0)
        splits = _counts(judged, "split") if "split" in judged.column_names else None
        return cls(
            rows=judged.num_rows,
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
        """The tally for people, on several lines."""
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


def _counts(table: pa.Table, column: str) -> dict[str | None, int]:
    return {pair["values"]: pair["counts"] for pair in table[column].value_counts().to_pylist()}
