"""YuNet in batches: what ONNX Runtime computes image by image."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from lib.common.onnx import session
from lib.common.tensorflow_settings import tf
from lib.faces.boxes import round_up
from lib.faces.yunet import STRIDES, WEIGHTS, Yunet
from lib.faces.yunet_network import load
from lib.faces.yunet_on_gpu import YunetInBatches

SIDE = 160


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    """A portrait in several shapes and sizes, also at the border, pictures without a face, and noise."""
    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    portrait = np.asarray(cv2.imread(path, cv2.IMREAD_COLOR_RGB), np.uint8)
    wide = np.concatenate([portrait, portrait[:, ::-1], portrait], axis=1)
    many = np.tile(cv2.resize(portrait, (64, 75)), (8, 10, 1)).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    large = np.asarray(cv2.resize(portrait, None, fx=3.1, fy=3.1), np.uint8)
    small = np.asarray(cv2.resize(portrait, (90, 101)), np.uint8)
    blank = np.zeros((50, 90, 3), np.uint8)
    return [portrait, wide, many, noise, large, small, blank, portrait[180:, 200:400]]


def outputs_apart(pictures: list[NDArray[np.uint8]]) -> Iterator[dict[str, NDArray[np.float32]]]:
    """ONNX Runtime's outputs for each picture on a canvas of its own."""
    network = session(WEIGHTS.read_bytes(), 1)
    names = [output.name for output in network.get_outputs()]
    for picture in pictures:
        height, width = (round_up(side, STRIDES[-1]) for side in picture.shape[:2])
        canvas = np.zeros((1, 3, height, width), np.float32)
        canvas[0, :, : picture.shape[0], : picture.shape[1]] = picture[..., ::-1].transpose(2, 0, 1)
        outputs = dict(zip(names, network.run(None, {"input": canvas}), strict=True))
        yield {
            name: values.reshape(height // stride, width // stride, -1)
            for name, values in outputs.items()
            for stride in [int(name.partition("_")[2])]
        }


def test_outputs_are_those_of_onnx_runtime(pictures: list[NDArray[np.uint8]]) -> None:
    """Of all places of all pictures, however much of the canvas they fill."""
    shown = [picture[:SIDE, :SIDE] for picture in pictures]
    images = np.zeros((len(shown), SIDE, SIDE, 3), np.float32)
    for image, picture in zip(images, shown, strict=True):
        image[: picture.shape[0], : picture.shape[1]] = picture[..., ::-1]
    sizes = [[round_up(side, STRIDES[-1]) for side in picture.shape[:2]] for picture in shown]
    found = load(WEIGHTS)(tf.constant(images), tf.constant(sizes, tf.int32))
    for number, expected in enumerate(outputs_apart(shown)):
        assert len(expected) == 12
        for name, values in expected.items():
            rows, columns = values.shape[:2]
            np.testing.assert_allclose(
                found[name][number, :rows, :columns], values, atol=1e-4, rtol=1e-5
            )


def test_the_faces_are_those_of_a_cpu(pictures: list[NDArray[np.uint8]]) -> None:
    detector = YunetInBatches()
    prepared = [detector.prepare(picture) for picture in pictures]
    seen = detector.look(prepared)
    counts = []
    for picture, image, boxes in zip(pictures, prepared, seen, strict=True):
        (expected,) = Yunet().detect([picture])
        found = detector.finish(image, boxes)
        counts.append(len(found))
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=0.01)
    assert counts[:2] == [1, 3]
    assert counts[2] > 60
    assert counts[6] == 0


def test_batches_are_filled_up_and_parted(
    pictures: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.faces.yunet_on_gpu.BATCHES", (2, 3))
    detector = YunetInBatches()
    prepared = [detector.prepare(picture) for picture in [*pictures[:3], *pictures[5:8]]]
    seen = detector.look(prepared[:4])
    assert detector.look([]) == []
    for image, boxes, (whole,) in zip(
        prepared, seen, ([*detector.look([one])] for one in prepared[:4]), strict=False
    ):
        np.testing.assert_allclose(
            detector.finish(image, boxes).boxes, detector.finish(image, whole).boxes, atol=0.01
        )
