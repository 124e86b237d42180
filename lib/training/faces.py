"""Labelled faces, decoded once on each machine and then mapped into memory by all its workers.

The order of training is one permutation of all faces, of which each worker takes its part of every
batch: so any number of workers sees the same batches. For that each machine needs any face at any time.
A file of pixels that is mapped into memory serves this for sets larger than memory, too.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces, digest
from lib.datasets.labels import Split
from lib.faces.crop import whole
from lib.images import ImageError, Limits, decode
from lib.network_input import CropSpec
from lib.storage.folder import folder as as_folder
from lib.tasks import TASKS
from lib.tasks.task import Task

Classes = dict[str, NDArray[np.int64]]
ROWS_AT_A_TIME = 256


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
        images: uint8 (n, side, side, 3), RGB; may be mapped from a file.
        classes: as of `Labels`.
        spans: as of `Labels`.
    """

    images: NDArray[np.uint8]
    classes: Classes
    spans: Classes = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: slice) -> "Faces":
        """Only some of the faces."""
        classes, spans = (
            {task: of[rows] for task, of in labels.items()} for labels in (self.classes, self.spans)
        )
        return Faces(self.images[rows], classes, spans)


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


def decode_faces(faces: LabelledFaces, labels: Labels, side: int, cache: Path) -> Path:
    """Decode the pictures of a split into a file of pixels, unless it is there.

    Args:
        faces: the split.
        labels: of the same.
        side: of the squares, in pixels.
        cache: folder on a disk of this machine.

    Returns:
        The file, for `open_faces`; numpy's format, uint8 (n, side, side, 3).

    Raises:
        UserError: a picture cannot be decoded.
    """
    file = cache / f"{faces.split}-{side}-{labels.order[:16]}.npy"
    if file.exists():
        return file
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}.tmp")
    spec = CropSpec(side, "box")
    try:
        pixels = _make_room(unfinished, (len(labels), side, side, 3))
        with ThreadPoolExecutor() as threads:
            for start, rows in _rows(faces):
                squares = threads.map(lambda row: _square(faces, row, spec), rows)
                for number, square in enumerate(squares, start):
                    pixels[number] = square
        pixels.flush()
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return file


def _make_room(file: Path, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """A file of pixels, mapped into memory, that has its place on the disk."""
    pixels = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    try:
        with file.open("r+b") as opened:
            # A full disk would otherwise end the process while it writes into memory.
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    except OSError as error:
        raise UserError(
            f"no room for {pixels.nbytes / 1e9:.1f} GB of decoded faces in {str(file.parent)!r} "
            f"({error.strerror}); make some, or set TMPDIR to another disk"
        ) from None
    return pixels


def open_faces(file: Path, labels: Labels) -> Faces:
    """Map a file of `decode_faces` into memory, beside its labels."""
    return Faces(np.load(file, mmap_mode="r"), labels.classes, labels.spans)


def load_faces(folder: Path, split: Split, side: int, cache: Path) -> Faces:
    """Decode a split where that has not been done, and map it into memory."""
    faces = LabelledFaces(as_folder(folder), split)
    labels = read_labels(faces)
    return open_faces(decode_faces(faces, labels, side, cache), labels)


def _rows(faces: LabelledFaces) -> Iterator[tuple[int, list[dict[str, object]]]]:
    """Picture and name of all faces, some at a time, each time with the number of the first."""
    start = 0
    for batch in faces.batches(("image", "source", "source_row"), ROWS_AT_A_TIME):
        yield start, batch.to_pylist()
        start += len(batch)


def _square(faces: LabelledFaces, row: dict[str, object], spec: CropSpec) -> NDArray[np.uint8]:
    data = row["image"]
    try:
        assert isinstance(data, bytes)
        return whole(decode(data, Limits(), at_least=2 * spec.size).pixels, spec)
    except (ImageError, AssertionError) as error:
        name = f"{row['source']}:{row['source_row']}"
        raise UserError(
            f"the picture of {name} in the split {faces.split} of {str(faces.folder)!r} cannot be "
            f"decoded ({error}); run jobs.prepare again"
        ) from None
