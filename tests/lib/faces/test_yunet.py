from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.faces.yunet import Yunet

FACE = np.array([183, 120, 170, 213]) / 600  # in heights of the portrait


@pytest.fixture(scope="module")
def yunet(shared_data: Path) -> Yunet:
    return Yunet(shared_data / "detector" / "face_detection_yunet_2026may.onnx")


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return np.asarray(cv2.imread(path, cv2.IMREAD_COLOR_RGB), np.uint8)


@pytest.mark.data
@pytest.mark.parametrize("height", [150, 600, 1500])
def test_finds_the_face_at_any_size(yunet: Yunet, portrait: NDArray[np.uint8], height: int) -> None:
    image = cv2.resize(portrait, (round(height * 512 / 600), height), interpolation=cv2.INTER_AREA)
    blank = np.zeros((50, 90, 3), np.uint8)
    nothing, found = yunet.detect([blank, np.asarray(image, np.uint8)])
    assert (len(nothing), len(found)) == (0, 1)
    np.testing.assert_allclose(found.boxes[0] / height, FACE, atol=0.03)
    eye, other_eye, nose, mouth, other_mouth = found.landmarks[0]
    assert eye[0] < nose[0] < other_eye[0]
    assert mouth[0] < other_mouth[0]
    assert max(eye[1], other_eye[1]) < nose[1] < min(mouth[1], other_mouth[1])


@pytest.mark.data
def test_boxes_end_where_the_image_ends(yunet: Yunet, portrait: NDArray[np.uint8]) -> None:
    image = portrait[180:, 200:400]
    (found,) = yunet.detect([image])
    assert len(found) == 1
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= image.shape[1::-1]).all()


@pytest.mark.data
@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (5, 3)])
def test_tiny_and_extreme_images_have_no_face(yunet: Yunet, shape: tuple[int, int]) -> None:
    (found,) = yunet.detect([np.zeros((*shape, 3), np.uint8)])
    assert len(found) == 0


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_names_the_file_that_it_cannot_use(tmp_path: Path, content: bytes | None) -> None:
    weights = tmp_path / "face.onnx"
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(UserError, match=r"face\.onnx.*\.onnx file") as raised:
        Yunet(weights)
    assert "\n" not in str(raised.value)
