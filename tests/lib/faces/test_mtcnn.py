from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from benchmarks.detector import Agreement, agreement, of_package, read_photos
from lib.faces.detections import Detections
from lib.faces.mtcnn import Mtcnn

FACE = (
    np.array([183, 120, 170, 213]) / 600
)  # in heights of the portrait, as another detector saw it


@pytest.fixture(scope="module")
def mtcnn() -> Mtcnn:
    return Mtcnn()


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return np.asarray(cv2.imread(path, cv2.IMREAD_COLOR_RGB), np.uint8)


def of_height(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    size = (round(image.shape[1] * height / image.shape[0]), height)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def blank(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 90, np.uint8)


def faces(found: Detections) -> NDArray[np.float32]:
    """All the numbers of a result, one row for each face."""
    return np.column_stack([found.scores, found.boxes, found.landmarks.reshape(-1, 10)])


@pytest.mark.parametrize("height", [120, 300, 600, 1500])
def test_finds_the_face_at_any_size(mtcnn: Mtcnn, portrait: NDArray[np.uint8], height: int) -> None:
    (found,) = mtcnn.detect([of_height(portrait, height)])
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0] / height, FACE, atol=0.06)
    eye, other_eye, nose, mouth, other_mouth = found.landmarks[0]
    assert eye[0] < nose[0] < other_eye[0]
    assert mouth[0] < other_mouth[0]
    assert max(eye[1], other_eye[1]) < nose[1] < min(mouth[1], other_mouth[1])


def test_each_image_of_a_batch_is_on_its_own(mtcnn: Mtcnn, portrait: NDArray[np.uint8]) -> None:
    images = [blank(400, 640), portrait, of_height(portrait, 150), blank(9, 9), portrait[:, ::-1]]
    together = mtcnn.detect(images)
    assert [len(found) for found in together] == [0, 1, 1, 0, 1]
    for image, found in zip(images, together, strict=True):
        np.testing.assert_allclose(faces(found), faces(mtcnn.detect([image])[0]), atol=0.01)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(140, None), slice(None)),
        (slice(300), slice(None)),
        (slice(None), slice(200, None)),
        (slice(None), slice(315)),
    ],
    ids=["no brow", "no chin", "no left", "no right"],
)
def test_boxes_end_where_the_image_ends(
    mtcnn: Mtcnn, portrait: NDArray[np.uint8], rows: slice, columns: slice
) -> None:
    image = portrait[rows, columns]
    (found,) = mtcnn.detect([image])
    assert len(found) == 1
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= image.shape[1::-1]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (11, 11), (24, 24), (25, 900)])
def test_tiny_and_extreme_images_have_no_face(mtcnn: Mtcnn, shape: tuple[int, int]) -> None:
    (found,) = mtcnn.detect([blank(*shape)])
    assert faces(found).shape == (0, 15)


def test_an_empty_batch_is_an_empty_list(mtcnn: Mtcnn) -> None:
    assert mtcnn.detect([]) == []


@pytest.mark.parametrize("min_face_size", [11, 641])
def test_refuses_a_face_size_that_cannot_be(min_face_size: int) -> None:
    with pytest.raises(ValueError, match="min_face_size"):
        Mtcnn(canvas=640, min_face_size=min_face_size)


@pytest.mark.data
def test_agrees_with_the_package(shared_data: Path) -> None:
    photos = read_photos(shared_data / "photos", longer_side=640)
    ours = Mtcnn(canvas=640, min_face_size=20).detect(photos)
    agreed: Agreement = agreement(ours, of_package(photos, min_face_size=20))
    assert agreed.package >= 40
    assert agreed.matched >= 0.98 * agreed.package
    assert agreed.additional <= 0.02 * agreed.package
