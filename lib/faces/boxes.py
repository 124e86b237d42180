"""Boxes and picture sizes, as the detectors need them.

Boxes are arrays (n, 4) of the upper left and the lower right corner, x, y, x, y, in pixels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from lib.faces.detections import Detections

Image = NDArray[np.uint8]
Floats = NDArray[np.floating]

_COMPARED = 500
"""Boxes that are compared with all others at once: bounds the memory."""


def shrink(image: Image, canvas: int) -> Image:
    """The image with its longer side at most `canvas` pixels long, averaged over areas."""
    size = _shrunk_size(image, canvas)
    return np.ascontiguousarray(image) if size is None else _resized(image, size, cv2.INTER_AREA)


def shrink_fast(image: Image, canvas: int) -> Image:
    """As `shrink`, but averaged over squares of whole pixels first, and between pixels then."""
    size = _shrunk_size(image, canvas)
    if size is None:
        return np.ascontiguousarray(image)
    height, width = image.shape[:2]
    factor = max(height, width) // canvas
    if factor > 1:
        averaged = (max(1, width // factor), max(1, height // factor))
        image = _resized(image, averaged, cv2.INTER_AREA)
    return _resized(image, size, cv2.INTER_LINEAR)


def _shrunk_size(image: Image, canvas: int) -> tuple[int, int] | None:
    """Width and height with the longer side `canvas` pixels long; None where it is not longer."""
    height, width = image.shape[:2]
    scale = canvas / max(height, width)
    return (max(1, round(width * scale)), max(1, round(height * scale))) if scale < 1 else None


def _resized(image: Image, size: tuple[int, int], method: int) -> Image:
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def suppress(
    boxes: Floats, scores: Floats, threshold: float, most: int, of_smaller: bool = False
) -> NDArray[np.intp]:
    """Which boxes to keep, best first: those that no box of a better score overlaps.

    Unlike in the usual, greedy suppression, a box that is dropped itself still drops others.

    Args:
        boxes: (n, 4).
        scores: (n,).
        threshold: the overlap that is still allowed, 0..1.
        most: how many are looked at, best first.
        of_smaller: measure the intersection against the smaller of two boxes, not their union.
    """
    order = np.argsort(scores)[::-1][:most]
    x1, y1, x2, y2 = boxes[order].astype(np.float32).T
    area = (x2 - x1) * (y2 - y1)
    dropped = np.zeros(len(order), bool)
    for start in range(0, len(order), _COMPARED):
        some, rest = slice(start, start + _COMPARED), slice(start, None)
        width = np.minimum.outer(x2[some], x2[rest]) - np.maximum.outer(x1[some], x1[rest])
        height = np.minimum.outer(y2[some], y2[rest]) - np.maximum.outer(y1[some], y1[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        if of_smaller:
            whole = np.minimum.outer(area[some], area[rest])
        else:
            whole = np.add.outer(area[some], area[rest]) - shared
        dropped[rest] |= np.triu(shared > threshold * whole, k=1).any(axis=0)
    return order[~dropped]


def size(boxes: Floats) -> Floats:
    """Width and height (n, 2) as the networks were taught them: with both border pixels."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def adjust(boxes: Floats, seen: Floats) -> Floats:
    """The boxes with their corners moved by the offsets that RNet or ONet saw."""
    return boxes + seen[:, :4] * np.tile(size(boxes), 2)


def square(boxes: Floats) -> Floats:
    """Squares around the same centres, with the longer side of the boxes."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def ratio(image: Image, shrunk: Image) -> Floats:
    """What takes x, y, x, y in the shrunk image to the image."""
    return np.tile(np.divide(image.shape[1::-1], shrunk.shape[1::-1]), 2)


def inside(image: Image, boxes: Floats, scores: Floats, landmarks: Floats) -> Detections:
    """The faces with their boxes cut off at the border of the image."""
    upper, lower = np.split(boxes.clip(0, np.tile(image.shape[1::-1], 2)), 2, axis=1)
    some = (lower > upper).all(axis=1)
    boxes = np.concatenate([upper, lower - upper], axis=1)
    return Detections(*(a[some].astype(np.float32) for a in (boxes, scores, landmarks)))


def round_up(number: int, multiple: int) -> int:
    """The next multiple that is not below the number."""
    return -(-number // multiple) * multiple
