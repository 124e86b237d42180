"""Labelled faces for training.

The order of training is one permutation of all faces, of which each worker takes its part of every
batch: so any number of workers sees the same batches. For that each machine needs any face at any time:
it copies the encoded ones to a disk of its own.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces, digest
from lib.datasets.labels import Split
from lib.images import ImageError
from lib.storage.folder import folder as as_folder
from lib.tasks import TASKS
from lib.tasks.task import Task
from lib.training.decoding import FaceDecoder
from lib.training.decoding_pool import MOST_THREADS, DecodingPool, DecodingThreads
from lib.training.face_store import FaceStore, copy_faces

Classes = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Labels:
    """What is known of the faces of a split, in the order of the files.

    Attributes:
        classes: of each task int64 (n,), indices of the true classes; of a band the middle.
        spans: of each task whose labels are bands int64 (n, 2), the first and the last possible class.
        digest: sha256 of the pictures' digests, whatever their order.
        order: sha256 of the pictures' digests in the order of the files.
    """

    classes: Classes
    spans: Classes
    digest: str
    order: str

    def __len__(self) -> int:
        return len(next(iter(self.classes.values())))


@dataclass(frozen=True)
class Faces:
    """Faces with their labels.

    Attributes:
        decoder: of the pictures.
        rows: int64 (n,), of the decoder's pictures those that are meant.
        classes: as of `Labels`, of these.
        spans: as of `Labels`, of these.
        weights: float32 (n,), how much each of them counts, above 0; None: all the same.
    """

    decoder: FaceDecoder
    rows: NDArray[np.int64]
    classes: Classes
    spans: Classes = field(default_factory=dict)
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, some: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.uint8]:
        """Decode some of the faces, or all: uint8 (n, side, side, 3), RGB.

        Raises:
            UserError: a picture cannot be decoded.
        """
        return self.decoder(self.rows[some])

    def part(self, some: slice | NDArray[np.bool_]) -> "Faces":
        """Only some of the faces."""
        classes, spans = (
            {task: of[some] for task, of in labels.items()} for labels in (self.classes, self.spans)
        )
        weights = None if self.weights is None else self.weights[some]
        return Faces(self.decoder, self.rows[some], classes, spans, weights)

    def weighted(self, weights: NDArray[np.float32]) -> "Faces":
        """The same with weights, float32 (n,), without the faces whose weight is 0.

        Raises:
            UserError: the weights are of another number of faces.
        """
        if len(weights) != len(self):
            raise UserError(
                f"{len(self)} faces have {len(weights)} weights; start again when nothing changes them"
            )
        return replace(self, weights=weights).part(weights > 0)


def read_labels(faces: LabelledFaces, tasks: Sequence[str] = tuple(TASKS)) -> Labels:
    """Read and check the labels of a split, which takes no picture.

    Args:
        faces: the split.
        tasks: that are trained; other labels may be missing.

    Raises:
        UserError: there are no faces, or one has a label that a task cannot be trained on.
    """
    truth = faces.truth()
    classes: Classes = {}
    for name in tasks:
        values = truth[name].to_numpy()
        classes[name] = TASKS[name].class_indices(values)
        if len(values) and (classes[name] < 0).all():
            others = " ".join(task for task in tasks if task != name) or "another data set"
            raise UserError(f"no face of {str(faces.folder)!r} has a {name}: use --tasks {others}")
        wrong = classes[name] < 0
        if wrong.any():
            row = truth.slice(int(wrong.argmax()), 1).to_pylist()[0]
            raise UserError(
                f"{wrong.sum():,} faces of the split {faces.split} of {str(faces.folder)!r} have no "
                f"possible {name}: {row['name']} has {row[name]}; jobs.prepare drops such faces"
            )
    spans = {name: _spans(truth, TASKS[name]) for name in tasks}
    return Labels(
        classes=classes,
        spans={name: of for name, of in spans.items() if of is not None},
        digest=digest(truth["sha256"]),
        order=hashlib.sha256("\n".join(truth["sha256"].to_pylist()).encode()).hexdigest(),
    )


def _spans(truth: pa.Table, task: Task[Any]) -> NDArray[np.int64] | None:
    """The first and the last possible class of each face, (n, 2); None where all labels are exact."""
    if task.span_columns is None:
        return None
    spans = np.stack([truth[column].to_numpy() for column in task.span_columns], axis=1)
    if not (spans[:, 0] < spans[:, 1]).any():
        return None
    return np.clip(spans, 0, task.classes - 1).astype(np.int64)


def open_faces(
    faces: LabelledFaces,
    labels: Labels,
    side: int,
    cache: Path,
    pool: DecodingPool | None = None,
    memory: int = 0,
) -> Faces:
    """Copy the pictures of a split to this machine unless they are there, and join them to their labels.

    Args:
        faces: the split.
        labels: of the same.
        side: of the squares that the faces are decoded to, in pixels.
        cache: folder on a disk of this machine.
        pool: decodes; None: a few threads of this process.
        memory: bytes that decoded faces may take.

    Raises:
        UserError: there is no room for them.
    """
    store = FaceStore(copy_faces(faces, labels.order, len(labels), cache))

    def refuse(row: int, error: ImageError) -> UserError:
        name = faces.truth()["name"][row].as_py()
        return UserError(
            f"the picture of {name} in the split {faces.split} of {str(faces.folder)!r} cannot be "
            f"decoded ({error}); run jobs.prepare again"
        )

    if pool is None:
        pool = DecodingThreads(min(MOST_THREADS, len(os.sched_getaffinity(0))))
    decoder = FaceDecoder(store, side, refuse, pool, memory)
    return Faces(decoder, np.arange(len(labels)), labels.classes, labels.spans)


def load_faces(folder: Path, split: Split, side: int, cache: Path) -> Faces:
    """The faces of a split in a folder of labelled faces, with all labels."""
    faces = LabelledFaces(as_folder(folder), split)
    return open_faces(faces, read_labels(faces), side, cache)
