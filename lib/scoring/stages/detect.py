"""Encoded bytes → boxes, landmarks and crops of the faces."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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
from lib.faces.quality import sharpness
from lib.faces.registry import DetectorSpec
from lib.images import ImageError, Limits, Picture, decode
from lib.scoring.schema import NO_FACE, OK
from lib.scoring.stages.face_arrays import face_column
from lib.scoring.stages.stage import Stopwatch, with_column


class Faces(NamedTuple):
    """The faces of one image, largest first, in pixels of the upright image at its full size.

    Attributes:
        boxes: float32 (n, 4): x, y, width, height.
        scores: float32 (n,), 0..1; NaN without a detector.
        landmarks: float32 (n, 5, 2), as in `Detections`; NaN without a detector.
        sharpness: float32 (n,), of `lib.faces.quality.sharpness`.
        crops: uint8 (n, size, size, 3), RGB.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    crops: NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """What is known of one image after detection.

    Attributes:
        status: of `lib.scoring.schema.STATUSES`.
        error: why it has no faces, if it could not be read; else what is wrong with its file, if
            anything is.
        width: of the upright image in pixels; None where it is unknown.
        height: the same.
        faces: in it.
    """

    status: str
    error: str | None
    width: int | None
    height: int | None
    faces: Faces


@dataclass
class Detect:
    """Replaces the encoded image by its size, and what is found of its faces: boxes, scores, crops, ….

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

    needs: ClassVar = ("data", "status", "error")
    drops: ClassVar = ("data",)
    gives: ClassVar = (
        "status",
        "error",
        "width",
        "height",
        "boxes",
        "face_scores",
        "landmarks",
        "sharpness",
        "crops",
    )

    def setup(self, watch: Stopwatch) -> None:
        """Load the detector."""
        self._watch = watch
        self._canvas: int | None = None
        self._load()
        none = Detections.none()
        crops = np.zeros((0, self.crop.size, self.crop.size, 3), np.uint8)
        self._no_faces = Faces(none.boxes, none.scores, none.landmarks, _sharpness(crops), crops)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Find the faces of all images of the batch."""
        found = self._find(batch.select(self.needs).to_pylist())
        counts = [len(image.faces.scores) for image in found]
        boxes, scores, landmarks, sharpness_, crops = (
            face_column(np.concatenate(arrays), counts)
            for arrays in zip(self._no_faces, *(image.faces for image in found), strict=True)
        )  # fmt: skip
        columns = {
            "status": pa.array([image.status for image in found], pa.string()),
            "error": pa.array([image.error for image in found], pa.string()),
            "width": pa.array([image.width for image in found], pa.int32()),
            "height": pa.array([image.height for image in found], pa.int32()),
            "boxes": boxes,
            "face_scores": scores,
            "landmarks": landmarks,
            "sharpness": sharpness_,
            "crops": crops,
        }
        for name, column in columns.items():
            batch = with_column(batch, name, column)
        return batch.drop_columns(list(self.drops))

    def _load(self) -> None:
        cv2.setNumThreads(self.threads)
        self._detector: Detector | None = self.detector.load(self.threads)
        if self._detector is not None:
            self._canvas = self._detector.canvas

    def _find(self, images: Sequence[dict[str, Any]]) -> list[Found]:
        """The faces of all images, few of them decoded at a time."""
        step = self._detector.at_a_time if self._detector else 1
        return [
            found
            for start in range(0, len(images), step)
            for found in self._find_together(images[start : start + step])
        ]

    def _find_together(self, images: Sequence[dict[str, Any]]) -> list[Found]:
        decoded = [self._decode(image) for image in images]
        pictures = [
            (image["data"], picture)
            for image, picture in zip(images, decoded, strict=True)
            if isinstance(picture, Picture)
        ]
        faces = iter(self._faces(pictures))
        return [
            _found(image, next(faces)) if isinstance(image, Picture) else image for image in decoded
        ]

    def _decode(self, image: dict[str, Any]) -> Picture | Found:
        """The picture, no larger than needed at first; or why there is none."""
        if image["data"] is None:
            return Found(image["status"], image["error"], None, None, self._no_faces)
        needed = self._canvas or longer_side_needed_whole(self.crop)
        try:
            with self._watch("decode"):
                return decode(image["data"], self.limits, at_least=needed)
        except ImageError as error:
            return Found(error.status, str(error), None, None, self._no_faces)

    def _faces(self, pictures: Sequence[tuple[bytes, Picture]]) -> list[Faces]:
        if self._detector is None:
            return [self._whole(picture) for _, picture in pictures]
        with self._watch("detect"):
            detections = self._detector.detect([picture.pixels for _, picture in pictures])
        return [
            self._cut_out(data, picture, faces)
            for (data, picture), faces in zip(pictures, detections, strict=True)
        ]

    def _cut_out(self, data: bytes, picture: Picture, faces: Detections) -> Faces:
        with self._watch("crop"):
            return self._faces_of(data, picture, faces)

    def _faces_of(self, data: bytes, picture: Picture, faces: Detections) -> Faces:
        boxes = picture.boxes_to_full(faces.boxes)
        landmarks = picture.to_full(faces.landmarks)
        needed = longer_side_needed(picture, faces, self.crop)
        if picture.scale > 1 and needed > max(picture.pixels.shape[:2]):
            # A face is smaller than its crop, and the file has more pixels of it.
            with suppress(ImageError):  # without memory for it, the smaller one has to do
                larger = decode(data, self.limits, at_least=needed)
                faces, picture = transfer(faces, picture, larger), larger
        order = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")
        crops = crop_faces(picture.pixels, faces, self.crop)[order]
        return Faces(boxes[order], faces.scores[order], landmarks[order], _sharpness(crops), crops)

    def _whole(self, picture: Picture) -> Faces:
        box = np.array([[0, 0, picture.width, picture.height]], np.float32)
        unknown = np.full(1, np.nan, np.float32)
        landmarks = np.full((1, 5, 2), np.nan, np.float32)
        with self._watch("crop"):
            crops = whole(picture.pixels, self.crop)[np.newaxis]
        return Faces(box, unknown, landmarks, _sharpness(crops), crops)


@dataclass
class DetectInBatches(Detect):
    """The same for a worker on a GPU: threads decode, shrink and crop, and a batch is looked at at once.

    Crops come from OpenCV as on CPUs, so that they are equal to the pixel. On the device each would need
    the whole picture there, to save the threads a twentieth of what decoding costs them.
    """

    def _load(self) -> None:
        cv2.setNumThreads(1)  # each image has a thread already
        self._threads = ThreadPoolExecutor(self.threads, "decode")
        self._batches = self.detector.load_for_batches(self.threads)
        if self._batches is not None:
            self._canvas = self._batches.canvas

    def _find(self, images: Sequence[dict[str, Any]]) -> list[Found]:
        if self._batches is None:
            return list(self._threads.map(self._take_whole, images))
        prepared = list(self._threads.map(self._prepare, images))
        pictures = [image for image in prepared if isinstance(image, _Prepared)]
        with self._watch("detect"):
            seen = self._batches.look([image.prepared for image in pictures]) if pictures else []
        finished = self._threads.map(self._finish, pictures, seen)
        return [next(finished) if isinstance(image, _Prepared) else image for image in prepared]

    def _take_whole(self, image: dict[str, Any]) -> Found:
        picture = self._decode(image)
        return _found(picture, self._whole(picture)) if isinstance(picture, Picture) else picture

    def _prepare(self, image: dict[str, Any]) -> "_Prepared | Found":
        assert self._batches is not None
        picture = self._decode(image)
        if not isinstance(picture, Picture):
            return picture
        with self._watch("shrink"):
            return _Prepared(image["data"], picture, self._batches.prepare(picture.pixels))

    def _finish(self, image: "_Prepared", seen: Any) -> Found:
        assert self._batches is not None
        with self._watch("crop"):
            faces = self._batches.finish(image.prepared, seen)
            return _found(image.picture, self._faces_of(image.data, image.picture, faces))


@dataclass(frozen=True)
class _Prepared:
    """An image that is to be looked at: encoded, decoded, and as the detector takes it."""

    data: bytes
    picture: Picture
    prepared: Any


def _sharpness(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of each crop, (n,)."""
    return np.array([sharpness(crop) for crop in crops], np.float32)


def _found(picture: Picture, faces: Faces) -> Found:
    status = OK if len(faces.scores) else NO_FACE
    return Found(status, picture.note, picture.width, picture.height, faces)
