"""Faces as the package `deepface` finds them: what the package `mtcnn` says of framed pictures."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from benchmarks.detector import of_package, read_photos
from lib.faces import deepface
from lib.faces.deepface import DeepfaceMtcnn, _averaged, _averages
from lib.faces.detections import Detections
from lib.faces.registry import DetectorSpec
from tests.ray_head import PROJECT

Image = NDArray[np.uint8]


PEAK_OF_A_LARGE_PICTURE = """
import cv2, numpy as np
from matplotlib.cbook import get_sample_data
from lib.faces.deepface import DeepfaceMtcnn
path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
image = np.tile(cv2.imread(path), (7, 9, 1))[:4096, :4096]
faces = len(DeepfaceMtcnn().detect([image])[0])
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(faces, int(peak) / 2**20)
"""


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


def test_levels_are_those_of_the_package() -> None:
    """To the fourth decimal, also where float32 no longer knows a pixel's border well, and in part."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (3001, 40, 3), np.uint8)
    for size in [(1800, 24), (1277, 17), (113, 13), (3001, 40)]:
        expected = tf.image.resize(image[np.newaxis], size, tf.image.ResizeMethod.AREA).numpy()[0]
        rows, columns = map(_averages, image.shape[:2], size)
        np.testing.assert_allclose(_averaged(image, rows, columns), expected, atol=1e-3)
        part = _averaged(image, rows[50:90], columns[3:])
        np.testing.assert_allclose(part, expected[50:90, 3:], atol=1e-3)


def test_strips_say_what_the_whole_says(
    detector: DeepfaceMtcnn, portrait: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = detector.detect([portrait])
    monkeypatch.setattr(deepface, "_PIXELS", 20_000)
    (found,) = detector.detect([portrait])
    np.testing.assert_allclose(found.boxes, whole.boxes, atol=0.1)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-3)


def test_a_large_picture_in_the_memory_of_a_worker() -> None:
    """4,096 pixels in the square, of which larger ones are made before."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_A_LARGE_PICTURE],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    faces, gib = map(float, done.stdout.split())
    assert faces >= 40
    assert gib < DetectorSpec("deepface").entry.worker_gib


@pytest.mark.data
def test_boxes_of_photographs(detector: DeepfaceMtcnn, shared_data: Path) -> None:
    photos = read_photos(shared_data / "photos", longer_side=900)[:12]
    expected = of_package([framed(photo) for photo in photos], min_face_size=20)
    found = detector.detect(photos)
    assert list(map(len, found)) == list(map(len, expected))
    pairs = zip(found, expected, photos, strict=True)
    distances = [distance for pair in pairs for distance in apart(*pair)]
    assert len(distances) >= 12
    assert np.mean(np.array(distances) <= 1) >= 0.95
