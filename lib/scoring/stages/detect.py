"""Encoded bytes → boxes and crops of the faces."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.faces.crop import (
    CropSpec,
    crop_faces,
    longer_side_needed,
    longer_side_needed_whole,
    transfer,
    whole,
)
from lib.faces.detections import Detections, Detector
from lib.faces.registry import DetectorSpec
from lib.images import ImageError, Limits, Picture, decode
from lib.scoring.schema import NO_FACE, OK
from lib.scoring.stages.stage import Stopwatch

FOUND = pa.schema(
    [
        ("status", pa.string()),
        ("error", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("face_count", pa.int32()),
        ("boxes", pa.binary()),
        ("face_scores", pa.binary()),
        ("crops", pa.large_binary()),
    ]
)
"""What `FindFaces` says of an image. The last three hold an array each, largest face first: float32
(faces, 4), float32 (faces,) and uint8 (faces, size, size, 3)."""


class Faces(NamedTuple):
    """The faces of one image: boxes in pixels of the full size, scores (NaN: no detector), crops."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    crops: NDArray[np.uint8]


@dataclass
class FindFaces:
    """Replaces `data` by the columns of `FOUND`.

    Attributes:
        detector: how to find faces.
        crop: how to cut them out.
        limits: what is not decoded at all.
        threads: for the computations; the CPUs of the worker.
    """

    detector: DetectorSpec
    crop: CropSpec
    limits: Limits
    threads: int

    def setup(self, watch: Stopwatch) -> None:
        """Load the detector."""
        self._watch = watch
        cv2.setNumThreads(self.threads)
        self._detector: Detector | None = self.detector.load(self.threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Find the faces of all images of the batch."""
        images = batch.select(["data", "status", "error"]).to_pylist()
        found: list[dict[str, Any]] = []
        step = self._detector.at_a_time if self._detector else 1
        for start in range(0, len(images), step):
            found += self._find(images[start : start + step])
        columns = pa.Table.from_pylist(found, schema=FOUND)
        batch = batch.drop_columns(["data", "status", "error"])
        for name in FOUND.names:
            batch = batch.append_column(name, columns[name])
        return batch

    def _find(self, images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        with self._watch("decode"):
            decoded = [self._decode(image) for image in images]
        pictures = [
            (image["data"], picture)
            for image, picture in zip(images, decoded, strict=True)
            if isinstance(picture, Picture)
        ]
        faces = iter(self._faces(pictures))
        return [
            _row(picture, next(faces)) if isinstance(picture, Picture) else picture
            for picture in decoded
        ]

    def _decode(self, image: dict[str, Any]) -> Picture | dict[str, Any]:
        """The picture, no larger than needed at first; or the row of one that cannot be had."""
        if image["data"] is None:
            return _no_picture(image["status"], image["error"])
        needed = self._detector.canvas if self._detector else longer_side_needed_whole(self.crop)
        try:
            return decode(image["data"], self.limits, at_least=needed)
        except ImageError as error:
            return _no_picture(error.status, str(error))

    def _faces(self, pictures: Sequence[tuple[bytes, Picture]]) -> list[Faces]:
        if self._detector is None:
            with self._watch("crop"):
                return [self._whole(picture) for _, picture in pictures]
        with self._watch("detect"):
            detections = self._detector.detect([picture.pixels for _, picture in pictures])
        with self._watch("crop"):
            return [
                self._cut_out(data, picture, faces)
                for (data, picture), faces in zip(pictures, detections, strict=True)
            ]

    def _cut_out(self, data: bytes, picture: Picture, faces: Detections) -> Faces:
        boxes = picture.boxes_to_full(faces.boxes)
        needed = longer_side_needed(picture, faces, self.crop)
        if picture.scale > 1 and needed > max(picture.pixels.shape[:2]):
            # A face is smaller than its crop, and the file has more pixels of it.
            with suppress(ImageError):  # no memory for it: the smaller one has to do
                larger = decode(data, self.limits, at_least=needed)
                faces, picture = transfer(faces, picture, larger), larger
        crops = crop_faces(picture.pixels, faces, self.crop)
        order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")
        return Faces(boxes[order], faces.scores[order], crops[order])

    def _whole(self, picture: Picture) -> Faces:
        box = np.array([[0, 0, picture.width, picture.height]], np.float32)
        unknown = np.array([np.nan], np.float32)
        return Faces(box, unknown, whole(picture.pixels, self.crop)[np.newaxis])


def _row(picture: Picture, faces: Faces) -> dict[str, Any]:
    return {
        "status": OK if len(faces.scores) else NO_FACE,
        "error": None,
        "width": picture.width,
        "height": picture.height,
        "face_count": len(faces.scores),
        "boxes": faces.boxes.tobytes(),
        "face_scores": faces.scores.tobytes(),
        "crops": faces.crops.tobytes(),
    }


def _no_picture(status: str, error: str) -> dict[str, Any]:
    nothing = {"face_count": 0, "boxes": b"", "face_scores": b"", "crops": b""}
    return {"status": status, "error": error, "width": None, "height": None, **nothing}
