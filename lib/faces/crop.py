"""Faces found in a picture → square crops, as the model's card asks for them.

Coordinates are continuous: pixel i of an axis covers i to i + 1. What lies outside the picture is black,
as in the chips of UTKFace. By "box" and by "landmarks" a crop is a similarity (scale, turn, shift) of the
picture, sampled with care; "stretched" and "eyes" do, to the pixel, what published models were fed with.
"""

from typing import assert_never

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from lib.faces.detections import Detections
from lib.images import Picture
from lib.network_input import CropSpec

_OVERSAMPLING = 2
_TINY = 1e-6


def crop_faces(
    pixels: NDArray[np.uint8], detections: Detections, spec: CropSpec
) -> NDArray[np.uint8]:
    """Cut the faces out of a picture.

    Args:
        pixels: (h, w, 3) uint8.
        detections: n faces, in pixels of that picture.
        spec: What the crops are to be like.

    Returns:
        (n, size, size, 3) uint8.
    """
    crops = np.empty((len(detections), spec.size, spec.size, 3), np.uint8)
    match spec.align:
        case "box" | "landmarks":
            for index, transform in enumerate(_transforms(detections, spec)):
                crops[index] = _cut(pixels, transform, spec.size)
        case "stretched":
            for index, box in enumerate(detections.boxes):
                crops[index] = _with_margin(pixels, box, spec)
        case "eyes":
            for index, (box, landmarks) in enumerate(
                zip(detections.boxes, detections.landmarks, strict=True)
            ):
                crops[index] = _fitted(_turned_by_eyes(pixels, box, landmarks), spec.size)
        case _:
            assert_never(spec.align)
    return crops


def whole(pixels: NDArray[np.uint8], spec: CropSpec) -> NDArray[np.uint8]:
    """Take a picture (h, w, 3) that is a face crop already: resized to (size, size, 3)."""
    if spec.align == "eyes":
        return _fitted(pixels, spec.size)
    return _stretched(pixels, spec.size, spec.size)


def longer_side_needed_whole(spec: CropSpec) -> int | None:
    """The longer side at which a picture that is taken whole must be decoded; None: at its full size."""
    if spec.align == "eyes":
        return None
    return 2 * spec.size  # it shrinks by area: twice the size is kept for that


def sampling(detections: Detections, spec: CropSpec) -> NDArray[np.float64]:
    """Pixels of the picture for one of the crop, along an axis, (n,); below 1 it is enlarged."""
    match spec.align:
        case "box" | "landmarks":
            return 1 / np.abs(_transforms(detections, spec)[:, 0])
        case "stretched":
            sides = detections.boxes[:, 2:].min(axis=1, initial=np.inf)
            return np.maximum(sides * (1 + 2 * spec.margin), 1) / spec.size
        case "eyes":
            return np.maximum(detections.boxes[:, 2:].max(axis=1, initial=1), 1) / spec.size
        case _:
            assert_never(spec.align)


def longer_side_needed(picture: Picture, detections: Detections, spec: CropSpec) -> int:
    """The longer side at which an image must be decoded so that no crop has to be enlarged.

    It is what `decode` takes as `at_least`, and no more than the full size; a second decoding pays
    where it is above the longer side of `picture.pixels`. 0 where there is no face. By "eyes" nothing
    is averaged, so that any reduction changes the crop: it is the full size.
    """
    if not len(detections):
        return 0
    full = max(picture.width, picture.height)
    if spec.align == "eyes":
        return full
    return int(full / max(1, sampling(detections, spec).min() * picture.scale))


def transfer(detections: Detections, source: Picture, target: Picture) -> Detections:
    """Carry faces found in one decoding of an image over to another decoding of the same image."""

    def carried(points: NDArray[np.float32]) -> NDArray[np.float32]:
        return target.from_full(source.to_full(points))

    low = carried(detections.boxes[:, :2])
    high = carried(detections.boxes[:, :2] + detections.boxes[:, 2:])
    boxes = np.concatenate([low, high - low], axis=1)
    return Detections(boxes, detections.scores, carried(detections.landmarks))


# A transform is kept as two complex numbers, a and b: the point x + iy of the picture goes to
# a (x + iy) + b of the crop. Such maps are just the similarities that do not mirror.


def _transforms(detections: Detections, spec: CropSpec) -> NDArray[np.complex128]:
    """From the picture to the crops, (n, 2)."""
    if spec.align == "box":
        return _box_transforms(detections.boxes, spec)
    return _landmark_transforms(detections.landmarks, spec)


def _box_transforms(boxes: NDArray[np.float32], spec: CropSpec) -> NDArray[np.complex128]:
    corner, extent = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    centre = _complex(corner + extent / 2)
    side = np.maximum(extent.max(axis=1, initial=0), 1) * (1 + 2 * spec.margin)
    a = spec.size / side + 0j
    return np.stack([a, spec.size * (0.5 + 0.5j) - a * centre], axis=1)


def _landmark_transforms(landmarks: NDArray[np.float32], spec: CropSpec) -> NDArray[np.complex128]:
    """Least squares over the landmarks: what Umeyama (1991) finds, with mirroring ruled out."""
    source = _complex(landmarks.astype(np.float64))
    target = _complex(np.array(spec.template)) * spec.size
    source_mean, target_mean = source.mean(axis=1, keepdims=True), target.mean()
    spread = source - source_mean
    weight = (np.abs(spread) ** 2).sum(axis=1)
    a = (spread.conj() * (target - target_mean)).sum(axis=1) / np.maximum(weight, _TINY)
    # Landmarks that lie on one spot, or mirrored, determine no scale: one pixel for one, then.
    a = np.where(np.abs(a) < _TINY, 1, a)
    return np.stack([a, target_mean - a * source_mean[:, 0]], axis=1)


def _complex(points: NDArray[np.float64]) -> NDArray[np.complex128]:
    return points[..., 0] + 1j * points[..., 1]


def _cut(
    pixels: NDArray[np.uint8], transform: NDArray[np.complex128], size: int
) -> NDArray[np.uint8]:
    """One crop, sampled twice as finely as needed and averaged, so that it is sharp between pixels.

    `cv2.warpAffine` would skip pixels when it shrinks, so the picture is shrunk by area before it;
    by a whole number, which is four times as fast and blurs less.
    """
    a, b = transform * _OVERSAMPLING
    fine = size * _OVERSAMPLING
    factor = max(1, int(1 / abs(a)))
    left, top, right, bottom = _region(pixels, a, b, fine, factor)
    if left >= right or top >= bottom:
        return np.zeros((size, size, 3), np.uint8)
    region = pixels[top:bottom, left:right]
    if factor > 1:
        shrunk = -(-(right - left) // factor), -(-(bottom - top) // factor)
        region = _resized(region, shrunk, cv2.INTER_AREA)
    step_x, step_y = (right - left) / region.shape[1], (bottom - top) / region.shape[0]
    corner = a * complex(left, top) + b
    linear = np.array([[a.real * step_x, -a.imag * step_y], [a.imag * step_x, a.real * step_y]])
    # OpenCV counts from the centre of the first pixel.
    shift = linear @ (0.5, 0.5) + (corner.real - 0.5, corner.imag - 0.5)
    warped = cv2.warpAffine(region, np.column_stack([linear, shift]), (fine, fine))
    return _resized(warped, (size, size), cv2.INTER_AREA)


def _region(
    pixels: NDArray[np.uint8], a: complex, b: complex, size: int, factor: int
) -> tuple[int, int, int, int]:
    """The part of the picture under a crop, with a margin for shrinking it by the factor.

    Returns:
        left, top, right, bottom; the sides are multiples of the factor where the picture goes on.
    """
    corners = (size * np.array([0, 1, 1j, 1 + 1j]) - b) / a
    margin = 2 * factor
    left, right = _span(corners.real, margin, factor, pixels.shape[1])
    top, bottom = _span(corners.imag, margin, factor, pixels.shape[0])
    return left, top, right, bottom


def _span(values: NDArray[np.float64], margin: int, multiple: int, limit: int) -> tuple[int, int]:
    start, end = np.clip([values.min() - margin, values.max() + margin], 0, limit)
    length = -(-(int(np.ceil(end)) - int(start)) // multiple) * multiple
    return int(start), min(int(start) + length, limit)


def _resized(image: MatLike, size: tuple[int, int], method: int) -> NDArray[np.uint8]:
    return cv2.resize(image, size, interpolation=method).astype(np.uint8, copy=False)


# Crops in whole pixels.


def _with_margin(
    pixels: NDArray[np.uint8], box: NDArray[np.float32], spec: CropSpec
) -> NDArray[np.uint8]:
    """The inside of a box (4,) with a share of its sides more on each side, resized to the crop.

    Where it reaches beyond the picture, what is black ends at a whole pixel of the crop.
    """
    corner, extent = box[:2].astype(np.float64), np.maximum(box[2:].astype(np.float64), 1)
    low = np.rint(corner - spec.margin * extent).astype(int)
    high = np.rint(corner + (1 + spec.margin) * extent).astype(int)
    ends = np.clip([low, high], 0, pixels.shape[1::-1])
    (left, top), (right, bottom) = np.rint((ends - low) * spec.size / (high - low)).astype(int)
    crop = np.zeros((spec.size, spec.size, 3), np.uint8)
    if left < right and top < bottom:
        inside = pixels[ends[0, 1] : ends[1, 1], ends[0, 0] : ends[1, 0]]
        crop[top:bottom, left:right] = _stretched(inside, right - left, bottom - top)
    return crop


def _turned_by_eyes(
    pixels: NDArray[np.uint8], box: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The box (4,) in whole pixels, from the picture turned so that the eyes are level.

    Only what lies within half a box around the box is turned; the rest is black.
    """
    corner, extent = np.split(np.rint(box).astype(int), 2)
    extent = np.maximum(extent, 1)
    around = extent // 2
    low, high = np.clip([corner - around, corner + extent + around], 0, pixels.shape[1::-1])
    if (low >= high).any():
        return np.zeros((extent[1], extent[0], 3), np.uint8)
    region = pixels[low[1] : high[1], low[0] : high[0]]
    left_eye, right_eye = np.rint(landmarks[:2])
    angle = np.degrees(np.arctan2(*(right_eye - left_eye)[::-1]))
    # From the region to the box: the centre is that of twice the box, in whole pixels.
    centre = corner - around + (extent + 2 * around) // 2
    turn = cv2.getRotationMatrix2D((centre - low).tolist(), float(angle), 1.0)
    turn[:, 2] += low - corner
    turned = cv2.warpAffine(region, turn, extent.tolist(), flags=cv2.INTER_CUBIC)
    return turned.astype(np.uint8, copy=False)


def _stretched(pixels: NDArray[np.uint8], columns: int, rows: int) -> NDArray[np.uint8]:
    """Resized, averaging where both sides shrink."""
    shrinks = pixels.shape[0] > rows and pixels.shape[1] > columns
    return _resized(pixels, (columns, rows), cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _fitted(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The picture scaled to fit into the square and centred there, on black."""
    height, width = pixels.shape[:2]
    factor = min(size / height, size / width)
    columns, rows = max(1, int(width * factor)), max(1, int(height * factor))
    square = np.zeros((size, size, 3), np.uint8)
    left, top = (size - columns) // 2, (size - rows) // 2
    square[top : top + rows, left : left + columns] = _resized(
        pixels, (columns, rows), cv2.INTER_LINEAR
    )
    return square
