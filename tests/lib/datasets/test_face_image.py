import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from lib.datasets.face_image import face_image
from lib.images import ImageError, Limits, decode
from tests.nasty import encoded, jpeg, jpeg_turned, quadrants


@pytest.mark.parametrize("size", [48, 64])
def test_a_small_plain_jpeg_stays_as_it_is(size: int) -> None:
    for original in (
        jpeg(quadrants(64, 48)),
        jpeg(Image.fromarray(quadrants(64, 48)).convert("L")),
    ):
        assert face_image(original, size) == (original, 64, 48)


@pytest.mark.parametrize(
    "make",
    [
        lambda picture: jpeg_turned(picture, 6),
        lambda picture: jpeg(Image.fromarray(picture).convert("CMYK")),
        lambda picture: encoded(picture, "MPO"),
        lambda picture: encoded(picture, "PNG"),
        lambda picture: encoded(picture, "WEBP"),
    ],
)
@pytest.mark.parametrize(
    ("width", "height", "stored"),
    [
        (64, 48, (64, 48)),
        (640, 480, (85, 64)),
        (479, 641, (64, 86)),
        (64, 6400, (64, 6400)),
    ],
)
def test_everything_else_becomes_an_upright_jpeg(
    make: Callable[[np.ndarray], bytes], width: int, height: int, stored: tuple[int, int]
) -> None:
    image, *original = face_image(make(quadrants(width, height)), 64)
    assert original == [width, height]
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", stored)
        assert not opened.getexif()
    expected = quadrants(*stored)
    error = np.abs(decode(image, Limits()).pixels.astype(int) - expected)
    assert np.mean(error) < 6


def test_a_large_jpeg_is_averaged() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (32, 32, 1), np.uint8).repeat(3, 2)
    image, *_ = face_image(jpeg(grey.repeat(40, 0).repeat(40, 1)), 64)
    shrunk = decode(image, Limits()).pixels
    assert np.mean(np.abs(shrunk.astype(int) - grey.repeat(2, 0).repeat(2, 1))) < 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"no image", "not an image"),
        (jpeg(quadrants(640, 480))[:-2000], "truncated"),
        (jpeg(quadrants(64, 48))[:-20], "truncated"),
        (encoded(quadrants(70_000, 40), "PNG"), "no JPEG has a side of 70000 pixels"),
    ],
)
def test_what_gives_no_picture(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        face_image(data, 64)
