"""Faces as the package `deepface` finds them: what the package `mtcnn` says of framed pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from benchmarks.detector import of_package, read_photos
from lib.faces.deepface import DeepfaceMtcnn
from lib.faces.detections import Detections

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detector() -> DeepfaceMtcnn:
    return DeepfaceMtcnn()


@pytest.fixture(scope="module")
def portrait() -> Image:
    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return np.asarray(cv2.imread(path, cv2.IMREAD_COLOR_RGB), np.uint8)


def framed(image: Image) -> Image:
    """With half a picture of black on each side."""
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    return np.pad(image, ((rows, rows), (columns, columns), (0, 0)))


def apart(found: Detections, expected: Detections, image: Image) -> list[float]:
    """Of each expected face the distance to the nearest one found, in pixels of the box's corners."""
    boxes = expected.boxes - [image.shape[1] // 2, image.shape[0] // 2, 0, 0]
    return [float(np.abs(found.boxes - box).max(axis=1).min(initial=np.inf)) for box in boxes]


def test_boxes_are_those_of_the_package(detector: DeepfaceMtcnn, portrait: Image) -> None:
    cut = portrait[:, 200:]  # through the face: its box reaches beyond the picture
    small = np.ascontiguousarray(portrait[::3, ::3])
    for image in (portrait, cut, small):
        (found,) = detector.detect([image])
        (expected,) = of_package([framed(image)], min_face_size=20)
        assert len(found) == len(expected) >= 1
        assert max(apart(found, expected, image)) <= 1
    assert (detector.detect([cut])[0].boxes[:, 0] < 0).any()


def test_pictures_without_anything(detector: DeepfaceMtcnn) -> None:
    pictures = [np.zeros((90, 90, 3), np.uint8), np.full((5, 400, 3), 90, np.uint8)]
    assert [len(found) for found in detector.detect(pictures)] == [0, 0]
    assert detector.detect([]) == []


@pytest.mark.data
def test_boxes_of_photographs(detector: DeepfaceMtcnn, shared_data: Path) -> None:
    photos = read_photos(shared_data / "photos", longer_side=900)[:12]
    expected = of_package([framed(photo) for photo in photos], min_face_size=20)
    pairs = zip(detector.detect(photos), expected, photos, strict=True)
    distances = [distance for pair in pairs for distance in apart(*pair)]
    assert len(distances) >= 12
    assert np.mean(np.array(distances) <= 1) >= 0.95
