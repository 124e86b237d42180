"""A look at the picture of a face itself: its digest, and how many faces a detector finds in it."""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from lib.faces.detections import Detections
from lib.faces.registry import DetectorSpec
from lib.images import ImageError, Limits, decode
from lib.scoring.stages.labelled_faces import ReadLabelledFaces
from lib.scoring.stages.stage import Stopwatch

SECOND_SHARE = 0.25
"""Of the area of the largest face, from which another one counts: smaller ones are in the background."""
UNREADABLE, NOT_LOOKED = -1, -2
"""In place of a number of faces."""
CARRIED = ("place", "picture", "faces_found")
"""Columns that label rows carry."""


@dataclass
class LookAtFaces:
    """The first stage: as `ReadLabelledFaces`, and columns about the picture.

    The detector sees the picture as it is. It finds faces that fill a picture to its border, as long as
    eyes, nose and mouth are in it.

    Attributes:
        detector: counts faces; None: nobody counts, which takes half as long.
    """

    detector: DetectorSpec | None

    needs: ClassVar = (*ReadLabelledFaces.needs, "place")
    drops: ClassVar = ReadLabelledFaces.needs
    gives: ClassVar = (*ReadLabelledFaces.gives, *CARRIED)

    def setup(self, watch: Stopwatch) -> None:
        """Load the detector."""
        self._watch = watch
        self._read = ReadLabelledFaces()
        self._limits = Limits()
        # This stage has a thread of its own, beside those of the models.
        self._detector = None if self.detector is None else self.detector.load(threads=1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add `picture` (int64, the first bytes of the encoded picture's digest) and `faces_found`."""
        images = batch["image"].to_pylist()
        columns = {
            "place": batch["place"],
            "picture": pa.array([_digest(image) for image in images], pa.int64()),
            "faces_found": pa.array([self._count(image) for image in images], pa.int16()),
        }
        rows = self._read(batch)
        for name, column in columns.items():
            rows = rows.append_column(name, column)
        return rows

    def _count(self, image: bytes | None) -> int:
        if self._detector is None:
            return NOT_LOOKED
        try:
            with self._watch("look"):
                picture = decode(image or b"", self._limits, at_least=self._detector.canvas)
                (found,) = self._detector.detect([picture.pixels])
        except ImageError:
            return UNREADABLE
        return count_large(found)


def count_large(found: Detections) -> int:
    """The faces that are not much smaller than the largest one."""
    areas = found.boxes[:, 2] * found.boxes[:, 3]
    return int((areas >= SECOND_SHARE * areas.max(initial=0.0)).sum())


def _digest(image: bytes | None) -> int:
    digest = hashlib.sha256(image or b"").digest()
    return int(np.frombuffer(digest, "<i8", 1)[0])
