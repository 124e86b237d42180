"""YuNet: faces of all sizes, at all places."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from lib.faces.yunet import WEIGHTS, Yunet
from lib.images import Limits, decode

FACE = np.array([183, 120, 170, 213]) / 600  # in heights of the portrait


@pytest.fixture(scope="module")
def yunet() -> Yunet:
    return Yunet()


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return np.asarray(cv2.imread(path, cv2.IMREAD_COLOR_RGB), np.uint8)


def resized(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    size = (round(height * image.shape[1] / image.shape[0]), height)
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


@pytest.mark.parametrize("height", [150, 600, 1500, 4000])
def test_finds_the_face_at_any_size(yunet: Yunet, portrait: NDArray[np.uint8], height: int) -> None:
    blank = np.zeros((50, 90, 3), np.uint8)
    nothing, found = yunet.detect([blank, resized(portrait, height)])
    assert (len(nothing), len(found)) == (0, 1)
    np.testing.assert_allclose(found.boxes[0] / height, FACE, atol=0.03)
    eye, other_eye, nose, mouth, other_mouth = found.landmarks[0]
    assert eye[0] < nose[0] < other_eye[0]
    assert mouth[0] < other_mouth[0]
    assert max(eye[1], other_eye[1]) < nose[1] < min(mouth[1], other_mouth[1])


@pytest.mark.parametrize("side", [110, 200, 800, 2000])
def test_neither_far_nor_near_faces_of_a_large_picture_are_lost(
    yunet: Yunet, portrait: NDArray[np.uint8], side: int
) -> None:
    picture = np.full((3000, 4000, 3), 90, np.uint8)
    person = resized(portrait, round(side / FACE[3]))[:3000, :4000]
    picture[: person.shape[0], : person.shape[1]] = person
    (found,) = yunet.detect([picture])
    assert len(found) == 1
    assert found.boxes[0, 3] == pytest.approx(side, rel=0.15)


def test_boxes_end_where_the_image_ends(yunet: Yunet, portrait: NDArray[np.uint8]) -> None:
    image = portrait[180:, 200:400]
    (found,) = yunet.detect([image])
    assert len(found) == 1
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= image.shape[1::-1]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (5, 3)])
def test_tiny_and_extreme_images_have_no_face(yunet: Yunet, shape: tuple[int, int]) -> None:
    (found,) = yunet.detect([np.zeros((*shape, 3), np.uint8)])
    assert len(found) == 0


def test_boxes_and_landmarks_are_those_of_opencv(portrait: NDArray[np.uint8]) -> None:
    """OpenCV has its own way from the network's outputs to faces."""
    network = cv2.FaceDetectorYN.create(str(WEIGHTS), "", (512, 600), 0.6, 0.3, 5000)
    _, expected = network.detect(cv2.cvtColor(portrait, cv2.COLOR_RGB2BGR))
    (found,) = Yunet().detect([portrait])
    np.testing.assert_allclose(found.boxes, expected[:, :4], atol=0.01)
    np.testing.assert_allclose(found.landmarks.reshape(-1, 10), expected[:, 4:14], atol=0.01)
    np.testing.assert_allclose(found.scores, expected[:, 14], atol=1e-5)


@pytest.mark.data
def test_finds_the_faces_of_photographs(yunet: Yunet, shared_data: Path) -> None:
    files = sorted((shared_data / "photos").glob("*.jpg"))
    pictures = [decode(file.read_bytes(), Limits(), at_least=640).pixels for file in files]
    counts = [len(found) for found in yunet.detect(pictures)]
    assert min(counts) == 1
    # 45 people were counted; four more are blurred or cut off.
    assert sum(counts) == 49
