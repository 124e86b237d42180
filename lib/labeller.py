"""Labels of single images in this process, without Ray."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.faces.registry import DEFAULT_DETECTOR, DetectorName, DetectorSpec
from lib.images import Limits
from lib.models.bundle import DEFAULT_MODEL, Precision, read_bundle
from lib.scoring.schema import OK
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.read_images import ImageLike, Reader
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import BATCH, Chain, Stage
from lib.storage.folder import folder
from lib.storage.options import StorageOptions
from lib.tasks.under_age import ADULT_AGE, check_threshold, under_column


class Box(NamedTuple):
    """A face in pixels of the upright image: the upper left corner, and the sides."""

    x: int
    y: int
    width: int
    height: int


class Point(NamedTuple):
    """A point in pixels of the upright image."""

    x: float
    y: float


class Landmarks(NamedTuple):
    """Five points of a face; left and right as seen in the image."""

    left_eye: Point
    right_eye: Point
    nose: Point
    left_mouth: Point
    right_mouth: Point


class Pose(NamedTuple):
    """How a head is turned, in degrees: positive where the nose points to the right and up, clockwise."""

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class Face:
    """What the models say of one face; None where the model has no such task.

    Attributes:
        age: expected age in years: the sum of probability times class.
        age_std: standard deviation of the age's distribution, in years.
        age_low: lower end of the 80% interval of the age, in years.
        age_high: upper end of the same.
        p_under: probability that the person is younger than the labeller's threshold.
        gender: how such a face is labelled in data sets.
        gender_score: probability of that gender, 0.5 to 1.
        certain: false where the labels are hardly worth anything; None: the model has no rule for that.
        box: of the face.
        face_score: the detector's confidence, 0 to 1; None without a detector.
        sharpness: variance of the crop's Laplacian; low where it is blurred.
        pose: None without a detector.
        cut: whether the box reaches the border of the image; None without a detector.
        landmarks: None without a detector.
        age_distribution: float32 (101,), the probability of each age from 0 to 100 years.
    """

    age: float | None
    age_std: float | None
    age_low: float | None
    age_high: float | None
    p_under: float | None
    gender: str | None
    gender_score: float | None
    certain: bool | None
    box: Box
    face_score: float | None
    sharpness: float
    pose: Pose | None
    cut: bool | None
    landmarks: Landmarks | None
    age_distribution: NDArray[np.float32] | None

    @classmethod
    def of(cls, row: dict[str, Any], threshold: int) -> "Face":
        """The face of an element of `faces` of a label row with that threshold."""
        distribution, points, pose = row["age_distribution"], row["landmarks"], row["pose"]
        under = under_column(threshold).name
        return cls(
            **{
                **{name: value for name, value in row.items() if name != under},
                "p_under": row[under],
                "box": Box(**row["box"]),
                "pose": pose and Pose(**pose),
                "landmarks": points and Landmarks(**{n: Point(**p) for n, p in points.items()}),
                "age_distribution": None
                if distribution is None
                else np.asarray(distribution, np.float32),
            }
        )


@dataclass(frozen=True)
class LabelledImage(Sequence[Face]):
    """The faces of one image, largest first; a sequence of `Face`.

    Attributes:
        status: `ok`, `no_face`, or why there is no label (see `lib.scoring.schema.STATUSES`).
        error: what went wrong; else None.
        width: of the upright image in pixels; None where it is unknown.
        height: the same.
        faces: all faces.
        model: name and digest of the model.
    """

    status: str
    error: str | None
    width: int | None
    height: int | None
    faces: tuple[Face, ...]
    model: str

    @property
    def ok(self) -> bool:
        """Whether there is at least one face."""
        return self.status == OK

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: Any) -> Any:
        return self.faces[index]

    def __iter__(self) -> Iterator[Face]:
        return iter(self.faces)


class Labeller:
    """Finds the faces of images and labels them, as `jobs.score` does.

    One instance serves one thread. Networks are loaded at the first image.

    Args:
        model: bundle folder of the model, or s3:// prefix of one.
        detector: finds the faces; "none": the images are face crops.
        precision: what the networks compute in.
        threshold: age in years, of the probability to be younger, `Face.p_under`.
        mirror: label by the mean over each face and its mirror image, which takes twice the model's time.
        threads: for the computations; the CPUs of this process if not given.
        limits: what is not decoded.
        storage: how files are reached.

    Raises:
        UserError: the model, the detector or the threshold cannot be used.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        detector: DetectorName = DEFAULT_DETECTOR,
        precision: Precision = "float32",
        threshold: int = ADULT_AGE,
        mirror: bool = False,
        threads: int | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        storage: StorageOptions = StorageOptions(),  # noqa: B008
    ) -> None:
        check_threshold(threshold)
        bundle = read_bundle(folder(str(model), storage))
        bundle.check_precision(precision)
        spec = DetectorSpec(detector)
        threads = threads or len(os.sched_getaffinity(0))
        self._threshold = threshold
        self._reader = Reader(limits, storage)
        self._stages: list[Stage] = [
            Detect(spec, bundle.crop, limits.with_raw_pixels(), threads),
            Predict(bundle, bundle.tasks, threads, precision, mirror=mirror),
            Label(bundle, with_distribution=True, keys=(), threshold=threshold),
        ]
        self._chain: Chain | None = None

    def label(self, image: ImageLike) -> LabelledImage:
        """Label one image.

        Args:
            image: uint8 (height, width, 3) RGB, a Pillow image, encoded bytes, or a path or URI.

        Returns:
            Its faces; an image that cannot be read has a status and an error, and no face.
        """
        return self.label_batch([image])[0]

    def label_batch(self, images: Iterable[ImageLike]) -> list[LabelledImage]:
        """Label images, each of them as `label` does; several at a time are faster."""
        self._chain = self._chain or Chain(self._stages)
        waiting = iter(images)
        labelled: list[LabelledImage] = []
        while batch := list(islice(waiting, BATCH)):
            rows = self._chain(self._reader.table(batch)).to_pylist()
            labelled += [
                LabelledImage(
                    row["status"],
                    row["error"],
                    row["width"],
                    row["height"],
                    tuple(Face.of(face, self._threshold) for face in row["faces"]),
                    row["model"],
                )
                for row in rows
            ]
        return labelled
