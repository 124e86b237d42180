"""Which faces the detectors find, by the size that they have in a picture of 4,000 pixels.

`python -m benchmarks.detectors --photos FOLDER`: photographs are scaled until their largest face has a
size, and laid into an empty picture; and they are looked at as they are and at a sixth of their size.
Prints shares of faces found, counts of boxes, and CPU time.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from lib.faces.boxes import Image
from lib.faces.detections import Detections, Detector
from lib.faces.registry import DetectorSpec
from lib.images import Limits, decode

SIDES = (48, 64, 96, 128, 192, 256, 512, 1024, 2048, 2900)
PICTURE, REDUCTION = (3000, 4000), 4
Box = NDArray[np.float32]
DETECTORS = ("mtcnn", "yunet")


@dataclass(frozen=True)
class Options:
    """Compare the detectors.

    Attributes:
        photos: Folder of photographs.
    """

    photos: Path


def main() -> None:
    """Measure, and print a line for each size and for each set of photographs."""
    options = tyro.cli(Options)
    detectors = {name: DetectorSpec(name).load(threads=1) for name in DETECTORS}
    photos = [read(file) for file in sorted(options.photos.glob("*.jpg"))]
    faces = known_faces(detectors, photos)
    print(f"{len(photos)} photographs; the largest face of {len(faces)} is found by all detectors")
    for side in SIDES:
        laid = [laid_into_picture(photo, box, side) for photo, box in faces]
        shares = {
            name: np.mean(
                [
                    is_found(detections, box)
                    for detections, (_, box) in zip(
                        detect(detector, [picture for picture, _ in laid]), laid, strict=True
                    )
                ]
            )
            for name, detector in detectors.items()
        }
        each = "  ".join(f"{name} {share:6.1%}" for name, share in shares.items())
        print(f"face of {side:4} pixels in {PICTURE[1]} x {PICTURE[0]}: {each}")
    sixths = [resized(photo, 1 / 6) for photo in photos]
    for title, pictures in (("photographs", photos), ("at a sixth of their size", sixths)):
        for name, detector in detectors.items():
            started = time.process_time()
            counts = [len(found) for found in detect(detector, pictures)]
            each_ms = (time.process_time() - started) / len(pictures) * 1000
            some = sum(count > 0 for count in counts)
            print(
                f"{title}: {name} {sum(counts)} faces in {some} pictures, {each_ms:.1f} ms of CPU each"
            )


def known_faces(
    detectors: Mapping[str, Detector | None], photos: list[Image]
) -> list[tuple[Image, Box]]:
    """Photographs, and the box of their largest face where all detectors find it."""
    of_each = [detect(detector, photos) for detector in detectors.values()]
    known = []
    for photo, *found in zip(photos, *of_each, strict=True):
        if all(len(one) for one in found):
            first, *others = (max(one.boxes, key=lambda box: box[2] * box[3]) for one in found)
            if all(overlap(other, first) > 0.4 for other in others):
                known.append((photo, first))
    return known


def read(file: Path) -> Image:
    """The pixels of a file."""
    return decode(file.read_bytes(), Limits()).pixels


def resized(image: Image, factor: float) -> Image:
    """The image, scaled."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def laid_into_picture(photo: Image, box: Box, side: int) -> tuple[Image, Box]:
    """A picture with the photograph's face in its middle, as decoding at a quarter gives it.

    Args:
        photo: the photograph.
        box: of the face, x, y, width, height.
        side: of the face in the full picture, in pixels.

    Returns:
        The picture, and where the face is.
    """
    factor = side / REDUCTION / max(box[2:])
    photo, box = resized(photo, factor), box * factor
    size = (PICTURE[1] // REDUCTION, PICTURE[0] // REDUCTION)
    shift = np.rint(np.array(size) / 2 - box[:2] - box[2:] / 2)
    moved = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    picture = cv2.warpAffine(photo, moved, size, borderValue=(110, 110, 110))
    return np.asarray(picture, np.uint8), np.concatenate([box[:2] + shift, box[2:]])


def detect(detector: Detector | None, pictures: list[Image]) -> list[Detections]:
    """What a detector finds in each picture."""
    assert detector is not None
    step = detector.at_a_time
    return [
        found
        for start in range(0, len(pictures), step)
        for found in detector.detect(pictures[start : start + step])
    ]


def is_found(detections: Detections, box: Box) -> bool:
    """Whether a face was found there."""
    return any(overlap(found, box) > 0.4 for found in detections.boxes)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, x, y, width, height."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = np.prod((high - low).clip(0))
    return float(shared / (np.prod(one[2:]) + np.prod(other[2:]) - shared))


if __name__ == "__main__":
    main()
