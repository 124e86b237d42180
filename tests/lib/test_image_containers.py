"""AVIF, HEIF and JPEG 2000: rotation, stale orientations, limits."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from lib.images import ImageError, Limits, decode
from tests import nasty
from tests.made_tiffs import RGB, Layout, tiff

# lib.images turns Pillow's warnings off, but pytest turns them on again.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

PICTURE = nasty.quadrants()
WIDTH, HEIGHT = 64, 48
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="1"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def heif(pixels: np.ndarray, exif: Image.Exif | None = None, xmp: bytes | None = None) -> bytes:
    height, width = pixels.shape[:2]
    file = pillow_heif.from_bytes("RGB", (width, height), np.ascontiguousarray(pixels).tobytes())
    buffer = io.BytesIO()
    file.save(buffer, quality=95, exif=exif and exif.tobytes(), xmp=xmp)
    return buffer.getvalue()


ENCODERS = {
    "AVIF": lambda pixels: nasty.encoded(pixels, "AVIF", quality=95, speed=8),
    "HEIF": heif,
    "JPEG 2000": lambda pixels: nasty.encoded(pixels, "JPEG2000"),
    "JPEG 2000 codestream": lambda pixels: nasty.encoded(pixels, "JPEG2000", no_jp2=True),
}


def mean_error(data: bytes) -> float:
    picture = decode(data, Limits())
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    return float(np.abs(picture.pixels.astype(int) - PICTURE).mean())


def status_of(data: bytes, limits: Limits) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, limits)
    return caught.value.status


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_of_heif_is_applied_once(orientation: int) -> None:
    """The writer turns the orientation of EXIF into properties of the image; the decoder applies them."""
    stored = Image.open(io.BytesIO(nasty.jpeg_turned(PICTURE, orientation)))
    data = heif(np.asarray(stored), exif=stored.getexif())
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    assert mean_error(data) < 6


@pytest.mark.parametrize("with_exif", [False, True])
def test_an_orientation_in_the_xmp_of_heif_turns_nothing(with_exif: bool) -> None:
    """It is put in afterwards: the writer would make a property of the image of it."""
    exif = Image.Exif()
    exif[ExifTags.Base.XResolution] = 72.0
    data = heif(PICTURE, exif if with_exif else None, XMP)
    data = data.replace(b'tiff:Orientation="1"', b'tiff:Orientation="6"')
    assert b'tiff:Orientation="6"' in data
    assert b"irot" not in data
    assert mean_error(data) < 6


@pytest.mark.parametrize("encoder", ENCODERS)
def test_limits_are_exact(encoder: str) -> None:
    data = ENCODERS[encoder](PICTURE)
    decode(data, Limits(max_pixels=WIDTH * HEIGHT, max_bytes=len(data)))
    assert status_of(data, Limits(max_pixels=WIDTH * HEIGHT - 1)) == "too_large"
    assert status_of(data, Limits(max_bytes=len(data) - 1)) == "too_large"


def test_the_limit_of_pixels_holds_for_tiles() -> None:
    data = tiff(PICTURE[:9, :9], RGB, Layout("deflate", tiled=True))
    decode(data, Limits(max_pixels=32 * 16))
    assert status_of(data, Limits(max_pixels=32 * 16 - 1)) == "too_large"
    assert mean_error(tiff(PICTURE, RGB, Layout("deflate", tiled=True))) == 0
