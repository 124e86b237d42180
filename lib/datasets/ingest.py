"""Shards of a data set's images → intermediate shards in Parquet, every image read, checked and shrunk.

An intermediate shard appears complete or not at all, and its name is the digest of its images. So a run
that continues does not write it again.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.archive.tar import TarError
from lib.datasets.face_image import LIMITS, face_image, face_in_box
from lib.datasets.image_sources import ImageShard, SourceImage
from lib.datasets.path_index import PathIndex
from lib.datasets.rules import IMAGE_RULES, Thresholds, first_rule
from lib.images import ImageError, decode
from lib.storage.errors import FetchError

MISSING_IMAGE = "missing_image"
"""The rule for rows without an image; all other image rules need one."""
READ = "read"
"""In `IngestReport.images`: the images that no rule drops."""

IMAGE_FACTS = pa.schema(
    [
        ("source_row", pa.int64()),  # of the metadata
        ("sha256", pa.string()),  # of the original bytes, and the box; null: they could not be had
        ("width", pa.int32()),  # of the original, or of the box, in pixels; null: unreadable
        ("height", pa.int32()),
        ("error", pa.string()),  # why it is unreadable, for people; null: it is not
        ("rule", pa.string()),  # the image rule that drops it; null: none
    ]
)
"""Facts about an image."""
SHARD_SCHEMA = IMAGE_FACTS.append(pa.field("image", pa.binary()))
"""The columns of an intermediate shard; the image is a JPEG, null where a rule drops it."""

_GROUP_ROWS = 64  # what a task holds in memory, and what stays together when faces are shuffled
_RULES = tuple(rule for rule in IMAGE_RULES if rule.name != MISSING_IMAGE)
_REPORT = "report"


@dataclass
class IngestReport:
    """Counts of a shard.

    Attributes:
        images: wanted images by the rule that drops them, or `READ`.
        unnamed: images that the metadata does not name.
        damage: where and why the rest of a tar cannot be read; None: nothing is damaged.
    """

    images: Counter[str] = field(default_factory=Counter)
    unnamed: int = 0
    damage: str | None = None


@dataclass(frozen=True)
class Ingest:
    """Writes the intermediate shard of a shard of images.

    Attributes:
        folder: for the intermediate shards.
        index: which rows name which image.
        wanted: (n,) for each row of the metadata, whether its image is needed.
        prefixes: source → the leading folders of its names that the metadata leaves out.
        thresholds: for the rules that look at an image.
        size: pixels of the shorter side above which an image is shrunk to it.
        boxes: (n, 4) for each row of the metadata, x0, y0, x1, y1 of the face in its image, in pixels;
            None: the images are faces.
    """

    folder: Path
    index: PathIndex
    wanted: NDArray[np.bool_]
    prefixes: dict[str, str]
    thresholds: Thresholds
    size: int
    boxes: NDArray[np.float64] | None = None

    def file(self, shard: ImageShard) -> Path:
        """The intermediate shard of a shard."""
        return self.folder / f"{shard.digest}.parquet"

    def __call__(self, shard: ImageShard) -> IngestReport:
        """Read the images of a shard and write its intermediate shard.

        Raises:
            OSError: it cannot be written.
        """
        cv2.setNumThreads(1)  # there are as many tasks as CPUs
        report = IngestReport()
        file = self.file(shard)
        unfinished = file.with_suffix(f".{os.getpid()}.tmp")
        with pq.ParquetWriter(
            unfinished, SHARD_SCHEMA, compression="none", use_dictionary=False
        ) as writer:
            for rows in _in_groups(self._rows(shard, report)):
                table = self._apply_rules(rows)
                report.images.update(table["rule"].fill_null(READ).to_pylist())
                writer.write_table(table)
            writer.add_key_value_metadata({_REPORT: json.dumps(vars(report))})
        unfinished.replace(file)
        return report

    def _rows(self, shard: ImageShard, report: IngestReport) -> Iterator[dict[str, Any]]:
        prefix = self.prefixes[shard.source]
        try:
            for image in shard:
                named = self._rows_that_name(image.name, prefix)
                report.unnamed += not named
                wanted = [row for row in named if self.wanted[row]]
                if wanted:
                    boxes = None if self.boxes is None else self.boxes[wanted]
                    facts = _read_image(image, self.size, boxes)
                    yield from (
                        {"source_row": row} | of for row, of in zip(wanted, facts, strict=False)
                    )
        except TarError as error:
            report.damage = f"{shard.source}: {error}"

    def _rows_that_name(self, name: str, prefix: str) -> list[int]:
        return self.index.rows(name.removeprefix(prefix)) if name.startswith(prefix) else []

    def _apply_rules(self, rows: list[dict[str, Any]]) -> pa.Table:
        table = pa.Table.from_pylist(rows, SHARD_SCHEMA)
        rule = first_rule(table, self.thresholds, _RULES)
        image = pc.if_else(pc.is_null(rule), table["image"], None)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        return pa.table({**columns, "rule": rule, "image": image}, schema=SHARD_SCHEMA)


def read_report(file: Path) -> IngestReport:
    """The report that an intermediate shard holds."""
    facts = json.loads(pq.read_metadata(file).metadata[_REPORT.encode()])
    return IngestReport(Counter(facts["images"]), facts["unnamed"], facts["damage"])


def _read_image(
    image: SourceImage, size: int, boxes: NDArray[np.float64] | None
) -> Iterator[dict[str, Any]]:
    """The columns that depend on the bytes of the image: for each box, or for every row the same."""
    try:
        data = image.read(LIMITS.max_bytes)
        if boxes is None:
            yield from repeat(_whole_image(data, size))
        else:
            yield from _faces_in_boxes(data, boxes, size)
    except FetchError as error:
        yield from repeat({"error": str(error)})


def _whole_image(data: bytes, size: int) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return {"sha256": sha256, **face_image(data, size)._asdict()}
    except ImageError as error:
        return {"sha256": sha256, "error": str(error)}


def _faces_in_boxes(data: bytes, boxes: NDArray[np.float64], size: int) -> Iterator[dict[str, Any]]:
    digests = (hashlib.sha256(data + str(box.tolist()).encode()).hexdigest() for box in boxes)
    try:
        picture = decode(data, LIMITS)
    except ImageError as error:
        yield from ({"sha256": digest, "error": str(error)} for digest in digests)
        return
    for digest, box in zip(digests, boxes, strict=True):
        yield {"sha256": digest, **face_in_box(picture, box, size)._asdict()}


def _in_groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(rows, _GROUP_ROWS)):
        yield group
