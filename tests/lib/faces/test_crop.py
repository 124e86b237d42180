import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lib.faces.crop import (
    crop_faces,
    longer_side_needed,
    longer_side_needed_whole,
    sampling,
    transfer,
    whole,
)
from lib.faces.detections import Detections
from lib.images import Limits, decode
from lib.network_input import ARCFACE_TEMPLATE, CropSpec
from tests import nasty

BOX = CropSpec(size=64, align="box")
LANDMARKS = CropSpec(size=112, align="landmarks")
EYES = CropSpec(size=224, align="eyes")
STRETCHED = CropSpec(size=224, align="stretched", margin=0.4)
SPOTS = np.array(ARCFACE_TEMPLATE)


def faces(*boxes: tuple[float, ...], landmarks: NDArray[np.float64] | None = None) -> Detections:
    points = np.zeros((len(boxes), 5, 2)) if landmarks is None else landmarks
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(len(boxes), np.float32),
        points.astype(np.float32),
    )


def turned(scale: float, degrees: float, x: float, y: float) -> NDArray[np.float64]:
    """The template's landmarks, scaled, turned and shifted: (1, 5, 2)."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (SPOTS @ rotation.T * scale + (x, y))[None]


def picture_of(spots: NDArray[np.float64], radius: float, side: int = 700) -> NDArray[np.uint8]:
    """Round bright spots on black; coordinates are continuous, a pixel's centre is at a half."""
    at = np.arange(side) + 0.5
    grey = sum(
        np.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * radius**2)) for x, y in spots
    )
    return np.repeat(np.round(255 * np.minimum(grey, 1))[:, :, None], 3, axis=2).astype(np.uint8)


def spot_centre(crop: NDArray[np.uint8], near: NDArray[np.float64]) -> NDArray[np.float64]:
    """The centre of brightness within 8 pixels, in continuous coordinates."""
    at = np.arange(len(crop)) + 0.5
    weight = crop[:, :, 0].astype(float)
    weight[(at[None] - near[0]) ** 2 + (at[:, None] - near[1]) ** 2 > 64] = 0
    return np.array([(weight * at[None]).sum(), (weight * at[:, None]).sum()]) / weight.sum()


@pytest.mark.parametrize("degrees", [0, 20, -75, 170])
@pytest.mark.parametrize("scale", [60.5, 112, 201.3, 420])
def test_landmarks_come_to_lie_on_the_template(scale: float, degrees: float) -> None:
    landmarks = turned(scale, degrees, 0, 0)
    landmarks += 350.3 - landmarks.mean(axis=1)
    found = faces((0, 0, 1, 1), landmarks=landmarks)
    pixels = picture_of(landmarks[0], radius=2.2 * scale / 112)

    (crop,) = crop_faces(pixels, found, LANDMARKS)

    for target in SPOTS * 112:
        assert np.abs(spot_centre(crop, target) - target).max() < 0.1
    assert sampling(found, LANDMARKS) == pytest.approx(scale / 112, rel=1e-4)


def test_landmarks_that_fit_no_template_are_met_by_least_squares() -> None:
    noise = np.random.default_rng(1).normal(0, 6, (1, 5, 2))
    landmarks = turned(200, 10, 200, 200) + noise
    source, target = landmarks[0], SPOTS * 112
    # x' = p x - q y + s, y' = q x + p y + t
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in source]
    (p, q, *_), *_ = np.linalg.lstsq(np.reshape(rows, (10, 4)), target.ravel(), rcond=None)

    assert sampling(faces((0, 0, 1, 1), landmarks=landmarks), LANDMARKS) == pytest.approx(
        1 / np.hypot(p, q), rel=1e-4
    )


@pytest.mark.parametrize(
    ("box", "margin"),
    [
        ((100, 100, 128, 128), 0.0),
        ((100.25, 90.5, 64, 50), 0.0),
        ((200.6, 150.3, 333.7, 210), 0.25),
        ((300, 300, 20, 31), 0.1),
    ],
)
def test_a_box_becomes_its_square(box: tuple[float, ...], margin: float) -> None:
    at = np.arange(700, dtype=np.float64) + 0.5
    pixels = np.zeros((700, 700, 3), np.uint8)
    pixels[:, :, 0] = np.round(at[None] / 3)
    pixels[:, :, 1] = np.round(at[:, None] / 3)
    x, y, width, height = box
    side = max(width, height) * (1 + 2 * margin)

    spec = replace(BOX, margin=margin)
    (crop,) = crop_faces(pixels, faces(box), spec).astype(float)
    (negative,) = crop_faces(255 - pixels, faces(box), spec).astype(float)

    # One grey level is three pixels; OpenCV rounds halves up, which the negative balances.
    place = (crop + 255 - negative) / 2 * 3
    steps = ((np.arange(64) + 0.5) / 64 - 0.5) * side
    error_x = place[:, :, 0] - (x + width / 2 + steps)[None]
    error_y = place[:, :, 1] - (y + height / 2 + steps)[:, None]
    assert max(np.abs(error_x).max(), np.abs(error_y).max()) < 3
    assert max(abs(error_x.mean()), abs(error_y.mean())) < 0.3
    assert sampling(faces(box), spec) == pytest.approx([side / 64])


@pytest.mark.parametrize("side", [64 * 2, 64 * 3.3, 64 * 7.9])
@pytest.mark.parametrize("spec", [BOX, replace(LANDMARKS, size=64)], ids=["box", "landmarks"])
def test_shrinking_averages_instead_of_skipping_pixels(spec: CropSpec, side: float) -> None:
    board = (np.indices((1100, 1100)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = faces((90.3, 90.7, side, side), landmarks=turned(side, 33, 400.2, 100))

    (crop,) = crop_faces(np.repeat(board[:, :, None], 3, axis=2), found, spec)

    assert np.abs(crop.astype(int) - 127).max() <= 64
    assert crop.std() < 32  # 127 for the pixels as they are


def test_what_lies_outside_is_black() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)

    crops = crop_faces(
        white, faces((-50, 0, 100, 100), (60, 60, 80, 80), (500, 500, 9, 9), (0, 0, 100, 100)), BOX
    )

    assert (crops[0, :, :31] == 0).all()
    assert (crops[0, 2:-2, 33:] == 255).all()
    assert (crops[1, :30, :30][2:, 2:] == 255).all()
    assert (crops[1, 34:] == 0).all()
    assert (crops[2] == 0).all()
    assert (crops[3, 1:-1, 1:-1] == 255).all()


@pytest.mark.parametrize("side", [16, 64, 100, 200, 333])
def test_a_picture_that_is_a_face_equals_the_crop_of_all_of_it(side: int) -> None:
    pixels = nasty.quadrants(side, side)

    taken = whole(pixels, BOX)
    (crop,) = crop_faces(pixels, faces((0, 0, side, side)), BOX)

    assert taken.shape == (64, 64, 3)
    assert taken.dtype == np.uint8
    inside = np.abs(taken.astype(int) - crop)[2:-2, 2:-2]
    assert inside.mean() < 2


def test_no_face_no_crop() -> None:
    crops = crop_faces(nasty.quadrants(), Detections.none(), LANDMARKS)
    assert crops.shape == (0, 112, 112, 3)
    assert sampling(Detections.none(), BOX).shape == (0,)


@pytest.mark.parametrize("spec", [BOX, LANDMARKS, STRETCHED, EYES])
@pytest.mark.parametrize("box", [(5, 5, 0, 0), (3, 3, 1e-3, 1e-3), (-9, -9, 5000, 4000)])
@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 20_000), (64, 48)])
def test_strange_faces_and_pictures_make_crops_all_the_same(
    spec: CropSpec, box: tuple[float, ...], size: tuple[int, int]
) -> None:
    pixels = nasty.quadrants(*size)
    mirrored = SPOTS * (-1, 1) * box[2] + box[:2]
    for landmarks in (np.full((1, 5, 2), 4.0), mirrored[None]):
        crops = crop_faces(pixels, faces(box, landmarks=landmarks), spec)
        assert crops.shape == (1, spec.size, spec.size, 3)


@pytest.mark.parametrize("spec", [LANDMARKS, replace(BOX, margin=0.4), STRETCHED, EYES])
def test_a_spec_survives_json(spec: CropSpec) -> None:
    assert CropSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 0}, "positive"),
        ({"align": "nose"}, "nose"),
        ({"margin": -0.5}, "margin"),
        ({"template": [[0.5, 0.5]]}, "five points"),
    ],
)
def test_a_spec_out_of_range_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CropSpec.from_dict(BOX.to_dict() | changes)


def test_decoding_again_gives_the_pixels_that_a_crop_needs() -> None:
    data = nasty.jpeg_turned(nasty.quadrants(1203, 801), 6)
    small = decode(data, Limits(), at_least=150)
    assert small.scale == 8
    full_boxes = np.array([[301, 200, 128, 128]], np.float32)
    low, high = small.from_full(np.array([[301, 200], [429, 328]], np.float32))
    found = faces((*low, *(high - low)))
    assert sampling(found, BOX) == pytest.approx([0.25])

    needed = longer_side_needed(small, found, BOX)
    large = decode(data, Limits(), at_least=needed)
    moved = transfer(found, small, large)

    assert large.scale == 2
    assert sampling(moved, BOX) == pytest.approx([1])
    np.testing.assert_allclose(large.boxes_to_full(moved.boxes), full_boxes, atol=1e-3)
    np.testing.assert_allclose(small.boxes_to_full(found.boxes), full_boxes, atol=1e-3)
    assert longer_side_needed(small, Detections.none(), BOX) == 0


def step_by_step(
    pixels: NDArray[np.uint8], box: tuple[int, ...], eyes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The way of `deepface`, in its steps: border, sub-picture, rotation, box, scaling, border."""
    height, width = pixels.shape[:2]
    x, y, w, h = box
    bordered = np.zeros((3 * height, 3 * width, 3), np.uint8)
    bordered[height : 2 * height, width : 2 * width] = pixels
    left, top = width + x - w // 2, height + y - h // 2
    part = bordered[top : top + h + 2 * (h // 2), left : left + w + 2 * (w // 2)]
    angle = np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1]))
    middle = (part.shape[1] // 2, part.shape[0] // 2)
    rotation = cv2.getRotationMatrix2D(middle, angle, 1.0)
    part = cv2.warpAffine(part, rotation, part.shape[1::-1], flags=cv2.INTER_CUBIC)
    upright = part[h // 2 : h // 2 + h, w // 2 : w // 2 + w] / 255
    factor = min(224 / h, 224 / w)
    face = cv2.resize(upright, (int(w * factor), int(h * factor)))
    rows, columns = 224 - face.shape[0], 224 - face.shape[1]
    before = (rows // 2, columns // 2)
    after = (rows - before[0], columns - before[1])
    return 255.0 * np.pad(
        np.asarray(face, np.float64), ((before[0], after[0]), (before[1], after[1]), (0, 0))
    )


@pytest.mark.parametrize(
    ("box", "eyes"),
    [
        ((120, 90, 201, 263), ((165, 190), (262, 209))),
        ((300, 200, 480, 333), ((420, 350), (650, 280))),
        ((40, 60, 50, 61), ((50, 80), (75, 80))),
        ((-30, -20, 120, 150), ((5, 40), (60, 33))),
        ((600, 400, 99, 180), ((690, 470), (620, 480))),
    ],
)
def test_by_the_eyes_it_is_as_published_step_by_step(
    box: tuple[int, ...], eyes: tuple[tuple[int, int], ...]
) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (110, 150, 3), np.uint8).repeat(5, axis=0).repeat(5, axis=1)
    landmarks = np.zeros((1, 5, 2))
    landmarks[0, :2] = eyes

    (crop,) = crop_faces(pixels, faces(box, landmarks=landmarks), EYES)

    expected = step_by_step(pixels, box, np.array(eyes, np.float64))
    assert np.abs(crop - expected).max() < 2  # grey levels: it scales whole numbers
    assert np.abs(crop - expected).mean() < 0.5


def test_by_the_eyes_a_whole_picture_is_fitted_with_truncated_sides() -> None:
    crop = whole(np.full((301, 150, 3), 255, np.uint8), EYES)

    rows, columns = np.nonzero(crop[:, :, 0])
    assert (rows.min(), rows.max()) == (0, int(301 * (224 / 301)) - 1)
    assert columns.max() - columns.min() + 1 == int(150 * (224 / 301)) == 111
    assert columns.min() == (224 - 111) // 2


@pytest.mark.parametrize("box", [(300, 200, 150, 100), (300, 200, 37, 60), (-30, 500, 200, 180)])
def test_stretched_takes_the_box_with_its_margin_whatever_its_shape(box: tuple[int, ...]) -> None:
    at = np.arange(700, dtype=np.float64) + 0.5
    pixels = np.zeros((700, 700, 3), np.uint8)
    pixels[:, :, 0] = 1 + np.round(at[None] / 3)
    pixels[:, :, 1] = 1 + np.round(at[:, None] / 3)
    x, y, width, height = box

    (crop,) = crop_faces(pixels, faces(box), STRETCHED).astype(float)

    shares = (np.arange(224) + 0.5) / 224 * 1.8 - 0.4
    for channel, start, extent in ((0, x, width), (1, y, height)):
        place = start + shares * extent
        expected = np.where((place >= 0) & (place < 700), 1 + place / 3, 0)
        line = crop[112, :, 0] if channel == 0 else crop[:, 112, 1]
        inside = (place > 5) & (place < 695)
        assert np.abs(line - expected)[inside].max() < 1.2
        assert (line[(place < -5) | (place > 705)] == 0).all()
    expected_step = min(width, height) * 1.8 / 224
    assert sampling(faces(box), STRETCHED) == pytest.approx([expected_step])


def test_by_the_eyes_a_crop_is_cut_from_the_full_size() -> None:
    data = nasty.jpeg(nasty.quadrants(1200, 800))
    small = decode(data, Limits(), at_least=150)
    assert longer_side_needed(small, faces((5, 5, 100, 80)), EYES) == 1200
    assert longer_side_needed(small, Detections.none(), EYES) == 0
    assert longer_side_needed(small, faces((5, 5, 10, 8)), STRETCHED) == 1200
    assert longer_side_needed_whole(EYES) is None
    assert longer_side_needed_whole(STRETCHED) == 448
