"""Probabilities → label rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.faces.quality import cut_by_border, pose, turned
from lib.models.bundle import Bundle
from lib.scoring.schema import (
    BOX,
    CERTAIN,
    KEYS,
    LANDMARKS,
    POINT,
    POSE,
    SHARPNESS,
    face_type,
    label_schema,
)
from lib.scoring.stages.face_arrays import face_counts, faces_of
from lib.scoring.stages.predict import probabilities_column
from lib.scoring.stages.stage import Stopwatch
from lib.tasks import TASKS
from lib.tasks.age import AGE
from lib.tasks.under_age import ADULT_AGE, p_under, under_column


@dataclass
class Label:
    """Turns what the other stages found into the label row of `lib.scoring.schema`.

    Attributes:
        bundle: the model; its calibration is applied here.
        with_distribution: give the whole distribution of the age, too.
        carry: further columns that go with each image.
        keys: columns that name the image, before those of the labels.
        threshold: age in years, of the probability to be younger.
    """

    bundle: Bundle
    with_distribution: bool = False
    carry: tuple[str, ...] = ()
    keys: tuple[str, ...] = KEYS
    threshold: int = ADULT_AGE

    drops: ClassVar = ("note", "boxes", "face_scores", "landmarks", "sharpness", "crops")

    @property
    def needs(self) -> Sequence[str]:
        """See `Stage`."""
        image = ("status", "error", "width", "height")
        faces = ("boxes", "face_scores", "landmarks", "sharpness")
        tasks = (probabilities_column(task) for task in self.bundle.tasks)
        return (*self.keys, *image, *faces, *tasks, *self.carry)

    @property
    def gives(self) -> Sequence[str]:
        """See `Stage`."""
        return [*self.keys, *self._schema.names, *self.carry]

    @property
    def _schema(self) -> pa.Schema:
        return label_schema(self.with_distribution, keys=False, threshold=self.threshold)

    def setup(self, watch: Stopwatch) -> None:
        """Nothing to load."""
        self._watch = watch

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Label all images of the batch at once."""
        with self._watch("label"):
            return self._label(batch)

    def _label(self, batch: pa.Table) -> pa.Table:
        counts = face_counts(batch, "face_scores").astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        faces = self._faces(batch)
        # The largest face comes first; an image without any takes row null, hence null everywhere.
        main = faces.take(pa.array(offsets[:-1], mask=counts == 0))
        keys, carried = (
            [batch.schema.field(n) for n in names] for names in (self.keys, self.carry)
        )
        schema = pa.schema([*keys, *self._schema, *carried])
        copied = (*self.keys, "status", "error", "width", "height", *self.carry)
        columns = {name: batch[name] for name in copied}
        if "note" in batch.column_names:
            columns["error"] = pc.coalesce(columns["error"], batch["note"])
        columns |= {"face_count": pa.array(counts)}
        columns |= dict(zip(faces.type.names, main.flatten(), strict=True))
        columns |= {"faces": pa.ListArray.from_arrays(pa.array(offsets), faces)}
        columns |= {"model": pa.array([model_id(self.bundle)] * len(batch))}
        return pa.table(columns).select(schema.names).cast(schema)

    def _faces(self, batch: pa.Table) -> pa.StructArray:
        """All faces of the batch, one after the other."""
        box = _whole_pixels(faces_of(batch, "boxes", (4,)))
        landmarks = faces_of(batch, "landmarks", (5, 2))
        angles = pose(landmarks)
        values: dict[str, object] = {
            "box": pa.StructArray.from_arrays([box[:, i] for i in range(4)], fields=list(BOX)),
            "face_score": faces_of(batch, "face_scores"),
            "landmarks": _points(landmarks),
            SHARPNESS: faces_of(batch, "sharpness"),
            "pose": _angles(angles),
            "cut": _cut(batch),
        }
        card = self.bundle.card
        for name, task in TASKS.items():
            probabilities = self._probabilities(batch, name, task.classes)
            labels = card.class_labels.get(name, ())
            values |= task.label(probabilities, labels, card.calibration[task.factor])
            if name == AGE.name:
                under = p_under(probabilities, self.threshold, card.under_age)
                values[under_column(self.threshold).name] = under
        values[CERTAIN] = self._certain(values, angles)
        type_ = face_type(self.with_distribution, self.threshold)
        arrays = [_as(values[field.name], field.type) for field in type_]
        return pa.StructArray.from_arrays(arrays, fields=list(type_))

    def _certain(self, values: Mapping[str, Any], angles: NDArray[np.float64]) -> pa.Array:
        """Which faces are certain; null where the card has no rule."""
        rule = self.bundle.card.certainty
        if rule is None:
            return pa.nulls(len(angles), pa.bool_())
        score, std, sharpness = (values[n] for n in ("gender_score", "age_std", SHARPNESS))
        return pa.array(rule.certain(score, std, sharpness, turned(angles)))

    def _probabilities(self, batch: pa.Table, task: str, classes: int) -> NDArray[np.float32]:
        """Of all faces; NaN, which becomes null, where the model does not know the task."""
        if task in self.bundle.tasks:
            return faces_of(batch, probabilities_column(task), (classes,))
        return np.full((face_counts(batch, "face_scores").sum(), classes), np.nan, np.float32)


def model_id(bundle: Bundle) -> str:
    """Name and the first twelve digits of the digest, as they stand in every label row."""
    return f"{bundle.name}@{bundle.digest[:12]}"


def _points(landmarks: NDArray[np.float32]) -> pa.StructArray:
    """Landmarks (n, 5, 2) as `LANDMARKS`; null for faces without."""
    points = [
        pa.StructArray.from_arrays([pa.array(axis) for axis in point.T], fields=list(POINT))
        for point in landmarks.swapaxes(0, 1)
    ]
    unknown = pa.array(np.isnan(landmarks[:, 0, 0]))
    return pa.StructArray.from_arrays(points, fields=list(LANDMARKS), mask=unknown)


def _angles(angles: NDArray[np.float64]) -> pa.StructArray:
    """Angles (n, 3) as `POSE`; null for faces without."""
    arrays = [pa.array(of_all, pa.float32()) for of_all in angles.T]
    unknown = pa.array(np.isnan(angles[:, 0]))
    return pa.StructArray.from_arrays(arrays, fields=list(POSE), mask=unknown)


def _cut(batch: pa.Table) -> pa.Array:
    """Whether the border cuts each face; null where nobody looked for it: the image is a crop."""
    boxes = faces_of(batch, "boxes", (4,))
    counts = face_counts(batch, "boxes")
    width, height = (
        np.repeat(batch[side].to_numpy(zero_copy_only=False), counts)
        for side in ("width", "height")
    )
    unknown = np.isnan(faces_of(batch, "face_scores"))
    return pa.array(cut_by_border(boxes, width, height), mask=unknown)


def _whole_pixels(boxes: NDArray[np.float32]) -> NDArray[np.int32]:
    """Boxes (n, 4) of x, y, width, height with rounded corners: those within an image stay within."""
    corners = np.rint(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(
        np.int32
    )


def _as(values: object, type_: pa.DataType) -> pa.Array:
    """Convert; NaN means unknown, hence null."""
    array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    return array.cast(type_)
