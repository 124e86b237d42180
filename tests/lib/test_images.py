import contextlib
import io
import itertools
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from lib.images import ImageError, Limits, Picture, decode
from tests import nasty

# lib.images turns Pillow's warnings off, but pytest turns them on again.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

LIMITS = Limits()
PICTURE = nasty.quadrants()
GREY = np.repeat(PICTURE[:, :, :1], 3, axis=2)
Array = NDArray[np.uint8]


def worst(picture: Picture, expected: Array) -> int:
    assert picture.pixels.shape == expected.shape
    return int(np.abs(picture.pixels.astype(int) - expected).max())


def status_of(data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, limits)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.status


def over_white(picture: Array, alpha: Array) -> Array:
    share = alpha[:, :, None] / 255
    return np.round(picture * share + 255 * (1 - share)).astype(np.uint8)


ALPHA = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, axis=0)
RGBA = np.dstack([PICTURE, ALPHA])
LA = np.dstack([PICTURE[:, :, 0], ALPHA])
HIDDEN_CORNER = PICTURE.copy()
HIDDEN_CORNER[:24, :32] = 255
ONE_BIT = np.where(GREY > 100, 255, 0).astype(np.uint8)


def tiff(pixels: Array | Image.Image, **options: object) -> bytes:
    return nasty.encoded(pixels, "TIFF", **options)


def adobe_cmyk() -> bytes:
    """As Photoshop and libjpeg write them: inverted, with an Adobe marker."""
    data = nasty.jpeg(Image.fromarray(PICTURE).convert("CMYK"))
    assert b"Adobe" in data[:64]
    return data


@pytest.mark.parametrize("at_least", [None, 32], ids=["full", "reduced"])
@pytest.mark.parametrize(
    ("data", "expected", "tolerance"),
    [
        pytest.param(nasty.jpeg(PICTURE), PICTURE, 6, id="jpeg"),
        pytest.param(nasty.jpeg(PICTURE, progressive=True), PICTURE, 6, id="progressive"),
        pytest.param(nasty.jpeg(PICTURE[:, :, 0]), GREY, 6, id="grey jpeg"),
        pytest.param(adobe_cmyk(), PICTURE, 8, id="cmyk jpeg"),
        pytest.param(nasty.encoded(PICTURE, "PNG"), PICTURE, 0, id="png"),
        pytest.param(nasty.png_grey16(PICTURE[:, :, 0]), GREY, 0, id="png grey 16"),
        pytest.param(nasty.png_rgb16(PICTURE), PICTURE, 0, id="png rgb 16"),
        pytest.param(nasty.encoded(RGBA, "PNG"), over_white(PICTURE, ALPHA), 1, id="png rgba"),
        pytest.param(nasty.encoded(LA, "PNG"), over_white(GREY, ALPHA), 1, id="png la"),
        pytest.param(nasty.palette_with_alpha(PICTURE), HIDDEN_CORNER, 0, id="palette alpha"),
        pytest.param(
            nasty.encoded(PICTURE, "PNG", transparency=nasty.QUADRANTS["upper left"]),
            HIDDEN_CORNER,
            0,
            id="png colour key",
        ),
        pytest.param(
            nasty.encoded(Image.fromarray(ONE_BIT).convert("1"), "PNG"), ONE_BIT, 0, id="one bit"
        ),
        pytest.param(nasty.animated(PICTURE, "GIF"), PICTURE, 0, id="animated gif"),
        pytest.param(nasty.animated(PICTURE, "PNG"), PICTURE, 0, id="animated png"),
        pytest.param(nasty.animated(PICTURE, "WEBP"), PICTURE, 0, id="animated webp"),
        pytest.param(nasty.encoded(PICTURE, "WEBP"), PICTURE, 0, id="webp"),
        pytest.param(nasty.encoded(PICTURE, "BMP"), PICTURE, 0, id="bmp"),
        pytest.param(tiff(PICTURE), PICTURE, 0, id="tiff"),
        pytest.param(tiff(PICTURE, compression="tiff_lzw"), PICTURE, 0, id="tiff lzw"),
        pytest.param(nasty.animated(PICTURE, "TIFF"), PICTURE, 0, id="tiff pages"),
        pytest.param(
            tiff(Image.fromarray((PICTURE[:, :, 0].astype(np.uint16) << 8) + 37)),
            GREY,
            0,
            id="tiff grey 16",
        ),
        pytest.param(nasty.animated(PICTURE, "MPO"), PICTURE, 6, id="mpo"),
    ],
)
def test_every_kind_of_pixels(
    data: bytes, expected: Array, tolerance: int, at_least: int | None
) -> None:
    picture = decode(data, LIMITS, at_least)

    assert (picture.width, picture.height, picture.offset) == (64, 48, (0, 0))
    assert picture.scale == (2 if at_least else 1)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    reduced = expected.reshape(
        48 // picture.scale, picture.scale, 64 // picture.scale, picture.scale, 3
    ).mean(axis=(1, 3))
    assert worst(picture, np.round(reduced)) <= tolerance + (picture.scale > 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied(orientation: int, format_: str) -> None:
    turned = nasty.jpeg_turned(PICTURE, orientation)
    if format_ == "JPEG":
        data = turned
    else:
        stored = Image.open(io.BytesIO(turned))
        data = nasty.encoded(stored, format_, exif=stored.getexif())

    picture = decode(data, LIMITS)

    assert (picture.width, picture.height) == (64, 48)
    assert np.abs(picture.pixels.astype(int) - PICTURE).mean() < 6


XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def xmp_file(format_: str, exif: Image.Exif) -> bytes:
    """A picture whose XMP says that it lies on its side."""
    match format_:
        case "PNG":
            text = PngInfo()
            text.add_itxt("XML:com.adobe.xmp", XMP.decode())
            return nasty.encoded(PICTURE, "PNG", pnginfo=text, exif=exif)
        case "TIFF":
            return tiff(PICTURE, tiffinfo={700: XMP}, compression="tiff_lzw")
        case _:
            return nasty.encoded(PICTURE, format_, xmp=XMP, exif=exif)


@pytest.mark.parametrize("with_exif", [False, True])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_orientation_in_xmp_turns_nothing(format_: str, with_exif: bool) -> None:
    """With an EXIF of a resolution and no orientation, Pillow asks the XMP while it opens a JPEG."""
    exif = Image.Exif()
    if with_exif:
        exif[ExifTags.Base.XResolution] = 72.0
    data = xmp_file(format_, exif)
    assert b"tiff:Orientation" in data

    picture = decode(data, LIMITS)

    assert (picture.width, picture.height) == (64, 48)
    assert np.abs(picture.pixels.astype(int) - PICTURE).mean() < 6


@pytest.mark.parametrize("size", [(64, 48), (61, 43), (57, 50), (9, 63), (2, 40)])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_pixels_map_back_exactly(
    size: tuple[int, int], orientation: int, reduction: int
) -> None:
    """Every reduced pixel is the mean of the full-size square that the picture says it covers."""
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = 2 * np.arange(width)
    ramp[:, :, 1] = 2 * np.arange(height)[:, None]
    data = nasty.jpeg_turned(ramp, orientation)

    picture = decode(data, LIMITS, at_least=-(-max(size) // reduction))

    assert (picture.width, picture.height, picture.scale) == (width, height, reduction)
    rows, columns = picture.pixels.shape[:2]
    for row, column in itertools.product((0, rows // 2, rows - 1), (0, columns // 2, columns - 1)):
        low = picture.to_full(np.array([column, row], np.float32))
        x0, y0 = np.maximum(low, 0).astype(int)
        x1, y1 = (low + reduction).astype(int)
        covered = ramp[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0)
        # Beyond its edge a JPEG holds what the encoder liked to write there.
        ragged = 2 * reduction if (x1 > width or y1 > height or (low < 0).any()) else 4
        assert np.abs(picture.pixels[row, column] - covered).max() <= ragged


def test_points_go_there_and_back() -> None:
    picture = Picture(np.zeros((6, 8, 3), np.uint8), 61, 43, 8, (-3, -5))
    points = np.array([[0, 0], [8, 6], [2.5, 3]], np.float32)

    full = picture.to_full(points)

    np.testing.assert_array_equal(full, [[-3, -5], [61, 43], [17, 19]])
    np.testing.assert_array_equal(picture.from_full(full), points)
    boxes = np.array([[0, 0, 8, 6], [1, 1, 2, 3]], np.float32)
    np.testing.assert_array_equal(picture.boxes_to_full(boxes), [[0, 0, 61, 43], [5, 3, 16, 24]])


@pytest.mark.parametrize(
    ("at_least", "scale"), [(None, 1), (1001, 1), (1000, 1), (501, 1), (500, 2), (250, 4), (1, 8)]
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_smallest_scale_that_leaves_enough(format_: str, at_least: int | None, scale: int) -> None:
    data = nasty.encoded(nasty.quadrants(300, 1000), format_)

    picture = decode(data, LIMITS, at_least)

    assert picture.scale == scale
    assert picture.pixels.shape == (1000 // scale, -(-300 // scale), 3)


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"", "decode_error", "empty"),
        (b"This is no picture.\n" * 100, "decode_error", "not an image"),
        (b"\xff\xd8\xff\xe0", "decode_error", "JPEG"),
        (b"\x89PNG\r\n\x1a\n\0\0", "decode_error", "damaged"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "decode_error", "HEIF"),
        (b"\0\0\0\x18ftypavif" + bytes(64), "decode_error", "AVIF"),
        (b"\0\0\0\x18ftypcrx " + bytes(64), "unsupported", "Canon"),
        (b"8BPS\0\1" + bytes(64), "unsupported", "Photoshop"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported", "SVG"),
        (tiff(Image.new("F", (8, 8))), "unsupported", "F"),
        (tiff(Image.new("LAB", (8, 8))), "unsupported", "LAB"),
    ],
)
def test_what_is_no_picture_says_why(data: bytes, status: str, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        decode(data, LIMITS)
    assert caught.value.status == status


ENCODERS: dict[str, Callable[[Array], bytes]] = {
    "jpeg": nasty.jpeg,
    "progressive": lambda pixels: nasty.jpeg(pixels, progressive=True),
    **{
        format_.lower(): partial(nasty.encoded, format_=format_)
        for format_ in ("PNG", "WEBP", "BMP", "TIFF", "GIF")
    },
    "tiff lzw": lambda pixels: tiff(pixels, compression="tiff_lzw"),
}


def noise() -> Array:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_half_grey_pictures(encoder: str) -> None:
    data = ENCODERS[encoder](noise())

    assert decode(data, LIMITS).width == 120
    for share in (0.02, 0.3, 0.6, 0.9):
        assert status_of(data[: int(len(data) * share)]) == "decode_error"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_damage_raises_nothing_but_image_errors(encoder: str) -> None:
    data = ENCODERS[encoder](noise())
    chance = np.random.default_rng(zlib.crc32(encoder.encode()))

    for _ in range(150):
        damaged = np.frombuffer(data, np.uint8).copy()
        # Most of the damage goes to the header, where the parsers are.
        reach = len(data) if chance.random() < 0.3 else min(200, len(data))
        damaged[chance.integers(0, reach, 4)] = chance.integers(0, 256, 4, np.uint8)
        with contextlib.suppress(ImageError):
            decode(damaged.tobytes(), Limits(max_pixels=100_000), at_least=20)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(nasty.png(30_000, 30_000, 1, 0, [bytes(3750)]), id="png"),
        pytest.param(nasty.png(30_000, 30_000, 1, 0, [bytes(3750)])[:60], id="header only"),
    ],
)
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    assert status_of(data) == "too_large"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_limits_are_exact(encoder: str) -> None:
    data = ENCODERS[encoder](noise())

    decode(data, Limits(max_pixels=120 * 90, max_bytes=len(data)))
    assert status_of(data, Limits(max_pixels=120 * 90 - 1)) == "too_large"
    assert status_of(data, Limits(max_bytes=len(data) - 1)) == "too_large"


def test_a_huge_text_chunk_is_no_bomb() -> None:
    text = nasty.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    tracemalloc.start()
    assert decode(nasty.png(8, 8, 8, 0, [bytes(8)], text), LIMITS).width == 8
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_broken_metadata_does_not_cost_the_picture() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(200))
    assert worst(decode(nasty.jpeg(PICTURE, exif=exif), LIMITS), PICTURE) <= 6


def test_nasty_files(tmp_path: Path) -> None:
    for name, status in nasty.make_nasty(tmp_path).items():
        if status == "access_denied":
            continue
        data = (tmp_path / name).read_bytes()
        if status == "ok":
            picture = decode(data, LIMITS, at_least=640)
            assert picture.pixels.size
        else:
            assert status_of(data) == status, name


@pytest.mark.data
def test_photographs_equal_another_decoder_and_their_own_reduction(shared_data: Path) -> None:
    """Reduced in the JPEG decoder or averaged afterwards: the same picture at the same place."""
    for path in sorted((shared_data / "photos").glob("*.jpg"))[:12]:
        data = path.read_bytes()
        full = decode(data, LIMITS)
        reduced = decode(data, LIMITS, at_least=300)
        height, width = full.pixels.shape[:2]

        assert (full.pixels[:, :, ::-1] == cv2.imread(str(path))).all()
        rows, columns = height // reduced.scale, width // reduced.scale
        averaged = cv2.resize(
            full.pixels[: rows * reduced.scale, : columns * reduced.scale],
            (columns, rows),
            interpolation=cv2.INTER_AREA,
        )
        difference = np.abs(averaged.astype(int) - reduced.pixels[:rows, :columns])
        assert difference.mean() < 2
