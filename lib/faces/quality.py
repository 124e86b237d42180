"""How much a picture shows of a face: its sharpness, its pose, and whether the border cuts it."""

import cv2
import numpy as np
from numpy.typing import NDArray

SHARPNESS_SIDE = 58
"""Pixels to which the middle of crops is brought before its sharpness is measured: as many as the
embedded model's crops have there."""
_GREY = cv2.COLOR_RGB2GRAY
FRONTAL = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.595, 0.4], [-0.424, 1.007, 0], [0.424, 1.007, 0]], np.float64
)
"""The landmarks of a face that looks straight ahead: x to the right, y down, z towards the viewer, in
distances of the eyes. x and y are the medians of what YuNet finds in 320 aligned chips of UTKFace with a
margin of 60 pixels, made symmetric; those of photographs are within 0.02. The tip of the nose stands out
by 130 of about 320 units, as in the generic head of Mallick 2016, "Head pose estimation using OpenCV and
Dlib": its nose is 135 before the eyes and 125 before the mouth, and its outer eye corners are 450 apart,
so that its pupils are about 320 apart."""
_TO_PROJECTION = np.linalg.pinv(FRONTAL - FRONTAL.mean(axis=0)).T


def sharpness(crop: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of a face's grey values: low where it is blurred or was enlarged.

    Pech-Pacheco et al., ICPR 2000, "Diatom autofocusing in brightfield microscopy". The crop is brought
    to one size first, so that faces of all sizes compare: one with fewer pixels than its crop has no
    fine structure there. The outer fifths do not count: hair, background, and black beyond the border.

    Args:
        crop: (size, size, 3) uint8, RGB, as a model gets it.

    Returns:
        0 for a flat crop; of UTKFace's chips half have 145 to 430, and 98% have 33 to 1,260.
    """
    margin = len(crop) // 5
    middle = cv2.cvtColor(crop[margin : len(crop) - margin, margin : len(crop) - margin], _GREY)
    if (side := len(middle)) != SHARPNESS_SIDE:
        method = cv2.INTER_AREA if side > SHARPNESS_SIDE else cv2.INTER_LINEAR
        middle = cv2.resize(middle, (SHARPNESS_SIDE, SHARPNESS_SIDE), interpolation=method)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(middle, cv2.CV_32F))
    return float(deviation[0, 0] ** 2)


def pose(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give the angles by which heads are turned, as a picture shows them.

    Under scaled orthographic projection five points determine the two upper rows of the rotation, up to
    scale, by least squares: the first step of POSIT (DeMenthon and Davis, IJCV 1995). They are replaced
    by the nearest orthonormal ones, and the third row is their cross product. The rotation is
    Rz(roll) Ry(yaw) Rx(pitch) of `FRONTAL`.

    Args:
        landmarks: (n, 5, 2) x and y, as in `Detections`; NaN: unknown.

    Returns:
        (n, 3) yaw, pitch and roll in degrees: positive where the nose points to the right of the
        picture, where it points up, and where the head is turned clockwise. Accurate to some degrees,
        as heads differ. NaN where the landmarks are unknown or lie on one spot.
    """
    points = landmarks.astype(np.float64)
    spread = points - points.mean(axis=1, keepdims=True)
    known = np.abs(spread).max(axis=(1, 2), initial=0) > 0  # False for NaN, too
    u, _, v = np.linalg.svd(spread[known].swapaxes(1, 2) @ _TO_PROJECTION, full_matrices=False)
    upper = u @ v
    lower = np.cross(upper[:, 0], upper[:, 1])
    angles = np.full((len(points), 3), np.nan)
    angles[known] = np.degrees(
        [
            np.arcsin(np.clip(-lower[:, 0], -1, 1)),
            np.arctan2(lower[:, 1], lower[:, 2]),
            np.arctan2(upper[:, 1, 0], upper[:, 0, 0]),
        ]
    ).T
    return angles


def turned(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees between where faces look and the viewer, (n,), from `pose`; the roll does not count."""
    yaw, pitch = np.radians(angles[:, :2]).T
    return np.degrees(np.arccos(np.cos(yaw) * np.cos(pitch)))


def cut_by_border(
    boxes: NDArray[np.float32], width: NDArray[np.int64], height: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether boxes reach the border of their image, so that a part of the face may be missing.

    Args:
        boxes: (n, 4) x, y, width, height in pixels of the image.
        width, height: (n,) of the image.
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    beyond = np.stack([width, height], axis=1) - 0.5  # less than half a pixel away is on it
    return np.any((low < 0.5) | (high > beyond), axis=1)
