"""Pieces of a data set's images → one Parquet part each, with every image read, checked and shrunk.

A part appears complete or not at all, under a name made from all that its piece is. So a part that is
there need not be made again.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.archive.tar import TarError
from lib.datasets.face_image import LIMITS, face_image
from lib.datasets.image_sources import Found, Piece
from lib.datasets.path_index import PathIndex
from lib.datasets.rules import IMAGE_RULES, Thresholds, first_rule
from lib.images import ImageError
from lib.storage.fetch import FetchError

MISSING_IMAGE = "missing_image"
"""The rule for rows that no image was found for; all other rules are for rows that have one."""
READ = "read"
"""What `Report.images` counts the images under that no rule drops."""

FOUND = pa.schema(
    [
        ("source_row", pa.int64()),  # of the metadata
        ("sha256", pa.string()),  # of the original bytes; null: they could not be had
        ("width", pa.int32()),  # of the original, upright, in pixels; null: unreadable
        ("height", pa.int32()),
        ("error", pa.string()),  # why it is unreadable, for people; null: it is not
        ("rule", pa.string()),  # the image rule that drops it; null: none
    ]
)
"""What is found out about an image."""
PART = FOUND.append(pa.field("image", pa.binary()))
"""The columns of a part; the image is a JPEG, null where the rule drops it."""

_GROUP_ROWS = 64  # what a task holds in memory, and what stays together when faces are shuffled
_RULES = tuple(rule for rule in IMAGE_RULES if rule.name != MISSING_IMAGE)
_REPORT = "report"


@dataclass
class Report:
    """What was in a piece.

    Attributes:
        images: wanted images by the rule that drops them, or `READ`.
        unnamed: images that the metadata does not name.
        damage: where and why the rest of a tar cannot be read; None: nothing is damaged.
    """

    images: Counter[str] = field(default_factory=Counter)
    unnamed: int = 0
    damage: str | None = None


@dataclass(frozen=True)
class Staging:
    """Turns pieces into parts.

    Attributes:
        folder: for the parts.
        index: which rows name which image.
        wanted: (n,) for each row of the metadata, whether its image is needed.
        prefixes: source → the leading folders of its names that the metadata leaves out.
        thresholds: for the rules that look at an image.
        size: pixels of the shorter side above which an image is shrunk to it.
    """

    folder: Path
    index: PathIndex
    wanted: NDArray[np.bool_]
    prefixes: dict[str, str]
    thresholds: Thresholds
    size: int

    def part(self, piece: Piece) -> Path:
        """The file for a piece."""
        return self.folder / f"{piece.digest}.parquet"

    def __call__(self, piece: Piece) -> Report:
        """Read a piece and write its part.

        Raises:
            OSError: the part cannot be written.
        """
        cv2.setNumThreads(1)  # there are as many tasks as CPUs
        report = Report()
        part = self.part(piece)
        unfinished = part.with_suffix(f".{os.getpid()}.tmp")
        with pq.ParquetWriter(unfinished, PART, compression="none", use_dictionary=False) as writer:
            for rows in _in_groups(self._rows(piece, report)):
                table = self._judge(rows)
                report.images.update(table["rule"].fill_null(READ).to_pylist())
                writer.write_table(table)
            writer.add_key_value_metadata({_REPORT: json.dumps(vars(report))})
        unfinished.replace(part)
        return report

    def _rows(self, piece: Piece, report: Report) -> Iterator[dict[str, Any]]:
        prefix = self.prefixes[piece.source]
        try:
            for found in piece:
                named = self._rows_that_name(found.name, prefix)
                report.unnamed += not named
                wanted = [row for row in named if self.wanted[row]]
                if wanted:
                    image = _look_at(found, self.size)
                    yield from ({"source_row": row, **image} for row in wanted)
        except TarError as error:
            report.damage = f"{piece.source}: {error}"

    def _rows_that_name(self, name: str, prefix: str) -> list[int]:
        return self.index.rows(name.removeprefix(prefix)) if name.startswith(prefix) else []

    def _judge(self, rows: list[dict[str, Any]]) -> pa.Table:
        table = pa.Table.from_pylist(rows, PART)
        rule = first_rule(table, self.thresholds, _RULES)
        image = pc.if_else(pc.is_null(rule), table["image"], None)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        return pa.table({**columns, "rule": rule, "image": image}, schema=PART)


def read_report(part: Path) -> Report:
    """The report of a part that is there."""
    facts = json.loads(pq.read_metadata(part).metadata[_REPORT.encode()])
    return Report(Counter(facts["images"]), facts["unnamed"], facts["damage"])


def _look_at(found: Found, size: int) -> dict[str, Any]:
    """All columns that the bytes of an image decide."""
    try:
        data = found.read(LIMITS.max_bytes)
    except FetchError as error:
        return {"error": str(error)}
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return {"sha256": sha256, **face_image(data, size)._asdict()}
    except ImageError as error:
        return {"sha256": sha256, "error": str(error)}


def _in_groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(rows, _GROUP_ROWS)):
        yield group
