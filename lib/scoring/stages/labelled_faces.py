"""Labelled faces → encoded bytes."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from lib.scoring.stages.stage import Stopwatch


@dataclass
class ReadLabelledFaces:
    """Stands in for `Fetch` where the bytes are in the rows: faces as jobs/prepare.py writes them.

    Takes `image`, `sha256` and `source_row`; the digest becomes the uri, the number the id.
    """

    needs: ClassVar = ("source_row", "sha256", "image")
    drops: ClassVar = needs
    gives: ClassVar = ("id", "uri", "data", "status", "error")

    def setup(self, watch: Stopwatch) -> None:
        """Nothing to load."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Name the columns as `Detect` takes them."""
        nothing = pa.nulls(len(batch), pa.string())
        return pa.table(
            {
                "id": batch["source_row"],
                "uri": batch["sha256"],
                "data": batch["image"],
                "status": nothing,
                "error": nothing,
            }
        )
