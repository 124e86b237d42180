import cv2
import numpy as np
import pytest

from lib.faces.quality import FRONTAL, cut_by_border, pose, sharpness, turned


def noise(side: int) -> np.ndarray:
    """Structure of all sizes, as skin and hair have."""
    rng = np.random.default_rng(0)
    whole = np.full((side, side, 3), 128.0)
    for n in (side // 16, side // 8, side // 4, side // 2, side):
        layer = rng.normal(0, 12, (n, n, 3))
        whole += cv2.resize(layer, (side, side), interpolation=cv2.INTER_CUBIC)
    return whole.clip(0, 255).astype(np.uint8)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """As OpenCV turns: about y, x and z, the axes of `FRONTAL`."""
    turns = [(2, roll), (1, yaw), (0, pitch)]
    matrix = np.eye(3)
    for axis, degrees in turns:
        vector = np.zeros(3)
        vector[axis] = np.radians(degrees)
        matrix = matrix @ cv2.Rodrigues(vector)[0]
    return matrix


def seen(yaw: float, pitch: float, roll: float, scale: float = 60.0) -> np.ndarray:
    """The landmarks of a turned head, in pixels somewhere in a picture."""
    points = FRONTAL @ rotation(yaw, pitch, roll).T
    return (scale * points[:, :2] + (300, 200)).astype(np.float32)


def test_blur_and_enlargement_lower_the_sharpness() -> None:
    crop = noise(96)
    blurred = [sharpness(np.asarray(cv2.GaussianBlur(crop, (0, 0), s))) for s in (0.7, 1.5, 3)]
    assert sharpness(crop) > blurred[0] > 2 * blurred[1] > 4 * blurred[2] > 0
    enlarged = cv2.resize(resized(crop, 24), (96, 96), interpolation=cv2.INTER_LINEAR)
    assert sharpness(np.asarray(enlarged)) < sharpness(crop) / 10
    assert sharpness(np.full((96, 96, 3), 77, np.uint8)) == 0


def test_crops_of_all_sizes_compare() -> None:
    """A large picture is as sharp in a crop of 224 as in one of 96 pixels."""
    picture = noise(960)
    values = [sharpness(resized(picture, side)) for side in (96, 224, 960)]
    assert max(values) < 1.6 * min(values)


def test_what_is_around_the_face_does_not_count() -> None:
    crop = np.full((96, 96, 3), 77, np.uint8)
    crop[:15] = 0  # beyond the border of the image
    crop[:, -15:] = noise(96)[:, :15]
    assert sharpness(crop) == 0


@pytest.mark.parametrize("yaw", [-60, -20, 0, 35])
@pytest.mark.parametrize("pitch", [-25, 0, 40])
@pytest.mark.parametrize("roll", [-120, 0, 15])
def test_the_pose_of_a_turned_head(yaw: float, pitch: float, roll: float) -> None:
    (angles,) = pose(seen(yaw, pitch, roll)[np.newaxis])
    np.testing.assert_allclose(angles, (yaw, pitch, roll), atol=0.01)


def test_the_directions_are_those_of_the_picture() -> None:
    nose = 2
    straight = seen(0, 0, 0)
    right, up = seen(30, 0, 0)[nose] - straight[nose], seen(0, 30, 0)[nose] - straight[nose]
    assert right[0] > 5
    assert up[1] < -5  # y grows downwards
    left_eye, right_eye = seen(0, 0, 20)[:2]
    assert right_eye[1] > left_eye[1] + 5  # clockwise


def test_a_mirrored_face_looks_the_other_way() -> None:
    landmarks = seen(25, -10, 12)
    mirrored = landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (640, 0)
    angles = pose(np.stack([landmarks, mirrored.astype(np.float32)]))
    np.testing.assert_allclose(angles[0], angles[1] * (-1, 1, -1), atol=0.01)


def test_without_landmarks_there_is_no_pose() -> None:
    landmarks = np.stack([np.full((5, 2), np.nan), np.full((5, 2), 7.0), seen(10, 0, 0)])
    angles = pose(landmarks.astype(np.float32))
    assert np.isnan(angles).all(axis=1).tolist() == [True, True, False]
    assert pose(np.zeros((0, 5, 2), np.float32)).shape == (0, 3)


def test_how_far_a_head_is_turned_away() -> None:
    angles = np.array([[0, 0, 50], [-40, 0, 0], [0, 30, 9], [60, 60, 0], [np.nan] * 3])
    np.testing.assert_allclose(
        turned(angles), [0, 40, 30, np.degrees(np.arccos(0.25)), np.nan], atol=1e-9
    )


def test_a_face_cut_by_the_border() -> None:
    """Each side, and none; half a pixel away is on the border."""
    boxes = np.array(
        [[0, 9, 9, 9], [9, 0.4, 9, 9], [91, 9, 9, 9], [9, 41, 9, 9], [1, 1, 98, 48], [-2, 9, 9, 9]],
        np.float32,
    )
    width, height = np.full(6, 100), np.full(6, 50)
    assert cut_by_border(boxes, width, height).tolist() == [True] * 4 + [False, True]
