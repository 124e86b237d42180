"""Damage that costs no pixel is mended, and no other."""

import contextlib
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ExifTags, Image

from lib.datasets.face_image import face_image
from lib.faces.registry import NO_DETECTOR, DetectorSpec
from lib.images import ImageError, Limits, decode
from lib.network_input import CropSpec
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.stage import Stopwatch
from tests import nasty
from tests.image_variants import ALPHA, PICTURE
from tests.made_pngs import GREY, PALETTE, RGB, RGBA, png

WRONG_TEXT = nasty.png_chunk(b"tEXt", b"Comment\0text")[:-4] + bytes(4)
NOISE = np.random.default_rng(0).integers(0, 256, (75, 90, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(NOISE[:6, :8]).resize((90, 75)))

JPEGS: dict[str, Callable[[], bytes]] = {
    "noise": lambda: nasty.jpeg(NOISE),
    "smooth": lambda: nasty.jpeg(SMOOTH),
    "4:2:0": lambda: nasty.jpeg(NOISE, subsampling=2),
    "progressive": lambda: nasty.jpeg(NOISE, progressive=True),
    "smooth, progressive": lambda: nasty.jpeg(SMOOTH, progressive=True, quality=50),
    "grey": lambda: nasty.jpeg(Image.fromarray(NOISE).convert("L")),
    "CMYK": lambda: nasty.jpeg(Image.fromarray(NOISE).convert("CMYK")),
    "restart markers": lambda: nasty.jpeg(NOISE, restart_marker_blocks=3),
    "one colour": lambda: nasty.jpeg(np.full((64, 64, 3), 200, np.uint8)),
}


def status_of(data: bytes, limits: Limits = Limits()) -> str:  # noqa: B008 - it is frozen
    with pytest.raises(ImageError) as caught:
        decode(data, limits)
    return caught.value.status


# lib.images turns Pillow's warnings off, but pytest turns them on again.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_marker_is_read_with_a_note(name: str, missing: int) -> None:
    data = JPEGS[name]()
    whole, mended = decode(data, Limits()), decode(data[:-missing], Limits())
    assert whole.note is None
    assert mended.note is not None
    assert "end marker" in mended.note
    np.testing.assert_array_equal(mended.pixels, whole.pixels)
    reduced = decode(data[:-missing], Limits(), at_least=20)
    assert reduced.scale > 1
    assert reduced.note == mended.note


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_whose_last_rows_are_missing_is_not_read(name: str) -> None:
    """However little is missing: only bits that change a level or three may be."""
    data = JPEGS[name]()
    whole = decode(data, Limits()).pixels
    for end in (*range(3, 60), *range(60, len(data) - 400, max(1, len(data) // 40))):
        with contextlib.suppress(ImageError):
            read = decode(data[:-end], Limits()).pixels
            worst = np.abs(read.astype(int) - whole).max()
            assert worst <= 3, f"{end} bytes are missing"
    assert status_of(data[: len(data) * 9 // 10]) == "decode_error"


@pytest.mark.parametrize(
    ("samples", "colour_type", "chunks"),
    [
        (PICTURE, RGB, []),
        (PICTURE[:, :, 1:2], GREY, []),
        (np.dstack([PICTURE, ALPHA]), RGBA, []),
        (PICTURE[:, :, :1] % 2, PALETTE, [nasty.png_chunk(b"PLTE", bytes([9, 9, 9, 200, 0, 0]))]),
    ],
)
def test_a_png_is_read_without_what_it_does_not_need(
    samples: np.ndarray, colour_type: int, chunks: list[bytes]
) -> None:
    sound = decode(png(samples, 8, colour_type, False, *chunks), Limits())
    mended = decode(png(samples, 8, colour_type, False, WRONG_TEXT, *chunks), Limits())
    np.testing.assert_array_equal(mended.pixels, sound.pixels)
    assert mended.note is None


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS"])  # zlib has a checksum of the pixels
def test_a_wrong_checksum_where_it_matters_is_an_error(kind: bytes) -> None:
    palette = nasty.png_chunk(b"PLTE", bytes([9, 9, 9, 200, 0, 0]))
    clear = nasty.png_chunk(b"tRNS", bytes([0, 255]))
    data = png(PICTURE[:, :, :1] % 2, 8, PALETTE, False, palette, clear)
    at = data.index(kind)
    (length,) = struct.unpack(">I", data[at - 4 : at])
    end = at + 4 + length
    assert zlib.crc32(data[at:end]) == int.from_bytes(data[end : end + 4], "big")
    assert status_of(data[:end] + bytes(4) + data[end + 4 :]) == "decode_error"


def test_a_mended_png_is_turned_by_its_exif() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = nasty.png_chunk(b"eXIf", exif.tobytes()[6:])
    picture = decode(png(PICTURE, 8, RGB, False, WRONG_TEXT, turned), Limits())
    np.testing.assert_array_equal(picture.pixels, np.rot90(PICTURE, -1))


@pytest.mark.parametrize(
    "data",
    [png(PICTURE, 8, RGB, False, WRONG_TEXT), nasty.jpeg(PICTURE)[:-2]],
    ids=["PNG", "JPEG"],
)
def test_mending_keeps_the_limits(data: bytes) -> None:
    height, width = PICTURE.shape[:2]
    decode(data, Limits(max_pixels=width * height, max_bytes=len(data)))
    assert status_of(data, Limits(max_pixels=width * height - 1)) == "too_large"
    assert status_of(data, Limits(max_bytes=len(data) - 1)) == "too_large"


def test_the_note_is_the_error_of_a_labelled_image() -> None:
    stage = Detect(DetectorSpec(NO_DETECTOR), CropSpec(32, "box"), Limits(), threads=1)
    stage.setup(Stopwatch())
    data = nasty.jpeg(PICTURE)
    (sound, noted) = (
        stage._find([{"data": of, "status": None, "error": None}])[0] for of in (data, data[:-2])
    )
    assert (sound.status, sound.error) == ("ok", None)
    assert noted.status == "ok"
    assert noted.error is not None
    assert "end marker" in noted.error


def test_damaged_bytes_are_no_training_face() -> None:
    data = nasty.jpeg(PICTURE)
    assert face_image(data, 64).image == data
    stored = face_image(data[:-2], 64)
    assert (stored.width, stored.height) == (61, 43)
    assert decode(stored.image, Limits()).note is None
