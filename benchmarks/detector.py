"""Our MTCNN against the PyPI package `mtcnn`: the same faces, and how much faster.

    python -m benchmarks.detector --photos FOLDER

The package looks at one image at a time; ours gets batches. Both run on the same photographs,
shrunk to the canvas beforehand, in one process with the same threads. They take turns, and the
ratio is that of their median times. The package runs with a smallest face of 20 pixels, its
default: above 21 or so it silently finds nothing in images whose last pyramid level is smaller than
what PNet looks at.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.faces.detections import Detections

Image = NDArray[np.uint8]

CONFIDENT = 0.95
SAME = 0.8  # intersection over union from which two boxes are one face


@dataclass(frozen=True)
class Agreement:
    """Counts of faces.

    Attributes:
        package: faces that the package is confident of.
        matched: those of them that ours found too.
        ours: faces that ours is confident of.
        additional: those of them that the package did not find, however unsure.
    """

    package: int
    matched: int
    ours: int
    additional: int


def agreement(ours: Sequence[Detections], package: Sequence[Detections]) -> Agreement:
    """Compare the two results for the same images."""
    counts = np.zeros(4, int)
    for mine, theirs in zip(ours, package, strict=True):
        same = _overlap(theirs.boxes, mine.boxes) >= SAME
        sure_of_theirs = theirs.scores >= CONFIDENT
        sure_of_mine = mine.scores >= CONFIDENT
        counts += (
            sure_of_theirs.sum(),
            (sure_of_theirs & same.any(axis=1)).sum(),
            sure_of_mine.sum(),
            (sure_of_mine & ~same.any(axis=0)).sum(),
        )
    return Agreement(*counts.tolist())


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union (n, m) of boxes (n, 4) and (m, 4), given as x, y, width, height."""
    upper = np.maximum(a[:, None, :2], b[:, :2])
    lower = np.minimum(a[:, None, :2] + a[:, None, 2:], b[:, :2] + b[:, 2:])
    shared = (lower - upper).clip(0).prod(axis=2)
    return shared / (a[:, None, 2:].prod(axis=2) + b[:, 2:].prod(axis=1) - shared)


def read_photos(folder: Path, longer_side: int) -> list[Image]:
    """The folder's photographs, RGB, those with a longer side above `longer_side` shrunk to it."""
    photos = []
    for path in sorted(folder.iterdir()):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if image is None:
            continue
        scale = longer_side / max(image.shape)
        if scale < 1:
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        photos.append(np.asarray(image, np.uint8))
    return photos


def of_package(photos: Sequence[Image], min_face_size: int) -> list[Detections]:
    """What the package finds, one image at a time."""
    return [_package_finds(photo, min_face_size) for photo in photos]


def _package_finds(photo: Image, min_face_size: int) -> Detections:
    rows = _package().detect_faces(photo, min_face_size=min_face_size)
    boxes = np.array([row["box"] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row["confidence"] for row in rows], np.float32)
    return Detections(boxes, scores, np.zeros((len(rows), 5, 2), np.float32))


@cache
def _package() -> Any:
    from mtcnn import MTCNN  # it imports TensorFlow, whose threads must be set before

    return MTCNN()


def seconds(runs: Sequence[Callable[[], object]], rounds: int) -> list[tuple[float, float]]:
    """Median time of each run by the clock and on the CPUs, all of them taking turns.

    A first turn of each does not count.
    """
    times: list[list[tuple[float, float]]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter(), time.process_time()
            run()
            taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return [(median(t[0] for t in taken[1:]), median(t[1] for t in taken[1:])) for taken in times]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--canvas", type=int, default=640, help="longer side, pixels")
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 24, 32, 36, 40])
    parser.add_argument("--batch", type=int, default=20, help="images at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    from lib.common.tensorflow_settings import (
        configure,
    )  # before what imports TensorFlow; isort: skip
    from lib.faces.mtcnn import Mtcnn

    configure(options.threads)

    photos = read_photos(options.photos, options.canvas)
    if not photos:
        parser.error(f"no photographs in {options.photos}")

    def of_ours(detector: Mtcnn) -> list[Detections]:
        batches = range(0, len(photos), options.batch)
        return [d for i in batches for d in detector.detect(photos[i : i + options.batch])]

    start = time.perf_counter()
    equal = Mtcnn(canvas=options.canvas, min_face_size=20)
    equal.detect(photos[: options.batch])
    print(f"{len(photos)} photos; start and first batch {time.perf_counter() - start:.1f} s")
    agreed = agreement(of_ours(equal), of_package(photos, min_face_size=20))
    print(f"confident faces (>= {CONFIDENT}), same at an overlap of {SAME}: {agreed}")

    print("\nsmallest face  faces  lost of those at 20")
    at_20 = of_ours(equal)
    for size in options.sizes:
        found = of_ours(Mtcnn(canvas=options.canvas, min_face_size=size))
        kept = agreement(found, at_20)
        print(f"{size:13}  {kept.ours:5}  {kept.package - kept.matched:4}")

    default = Mtcnn(canvas=options.canvas)
    package, ours, ours_default = seconds(
        [lambda: of_package(photos, 20), lambda: of_ours(equal), lambda: of_ours(default)],
        options.rounds,
    )
    print(f"\n{'':24}  ms/image  images/s  times the package: by the clock, on the CPUs")
    for name, (clock, cpu) in [
        ("package, 20", package),
        ("ours, 20", ours),
        (f"ours, default ({default.min_face_size})", ours_default),
    ]:
        each = clock / len(photos)
        ratios = f"{package[0] / clock:8.1f}  {package[1] / cpu:8.1f}"
        print(f"{name:24}  {each * 1e3:8.1f}  {1 / each:8.1f}  {ratios}")


if __name__ == "__main__":
    main()
