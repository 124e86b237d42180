"""Every format × variant of an image file: the right pixels, or the status `unsupported`."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from lib.archive.entry import is_image
from lib.images import Limits, decode, pixels_of
from tests.formats_page import NOTED, PAGE, READ, outcome, outcomes, page
from tests.image_variants import variants

# lib.images turns Pillow's warnings off, but pytest turns them on again.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

Found = dict[tuple[str, str], set[str]]


@pytest.fixture(scope="module")
def found() -> Found:
    return outcomes(variants())


def test_every_variant_is_read_right_or_refused(found: Found) -> None:
    wrong = {
        key: results
        for key, results in found.items()
        if not results <= {READ, NOTED, "`unsupported`"}
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "key",
    [
        ("TIFF", "RGB, 16 bits, planes"),
        ("TIFF", "CMYK, 16 bits, planes"),
        ("BMP", "32 bits, alpha 0 everywhere"),
        ("JPEG", "YCCK, Adobe"),
        ("AVIF", "10 bits"),
        ("HEIF", "HEVC"),
        ("JPEG 2000", "RGB, JP2"),
    ],
    ids=str,
)
def test_what_people_have_is_read(found: Found, key: tuple[str, str]) -> None:
    assert found[key] == {READ}


@pytest.mark.parametrize("loaded", [False, True])
def test_what_pillow_has_opened_shows_the_same(loaded: bool) -> None:
    """But where Pillow does not tell that it has made other pixels of them."""
    pillow_heif.register_heif_opener()
    right, wrong, refused = 0, set(), set()
    for variant in variants():
        try:
            image = Image.open(io.BytesIO(variant.data))
            if loaded:
                image.load()
            shown = variant.is_shown_by(pixels_of(image))
        except Exception:  # Pillow raises errors of many kinds
            if outcome(variant) == READ:
                refused.add(variant.name)
            continue
        right += shown
        if not shown:
            wrong.add(variant.name)
    assert right > 900
    assert wrong == {
        "grey, 4 bits, colour key",
        "grey, 4 bits, colour key, interlaced",
        "black and white, 8 bits",
    }
    assert refused == {"profile above 1 MB", "wrong checksum of a text"}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_of_what_a_pillow_image_tells_only_its_orientation_counts(
    format: str, orientation: int
) -> None:
    """Programs leave sizes and compressions of an earlier picture in its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if format != "TIFF":
        exif.update({0x0100: 3840, 0x0101: 5760, 0x0103: 5, 0x0111: 8, 0x0116: 9, 0x0142: 16})
    file = io.BytesIO()
    whole = np.tile(np.arange(0, 240, 8, dtype=np.uint8)[:, None, None], (1, 50, 3))
    whole[:, :25] //= 2
    Image.fromarray(whole).save(file, format, exif=exif, dpi=(1, 1), icc_profile=b"none")
    expected = decode(file.getvalue(), Limits()).pixels
    assert expected.shape == ((30, 50, 3) if orientation < 5 else (50, 30, 3))
    for load in (False, True):
        with Image.open(file) as image:
            if load:
                image.load()
            np.testing.assert_array_equal(pixels_of(image), expected)


def test_the_page_says_what_happens(found: Found) -> None:
    assert PAGE.read_text("utf-8") == page(found), "write it: python -m tests.formats_page"


@pytest.mark.parametrize("ending", ["jfif", "JPE", "pjpeg", "avif", "HEIC", "heif", "jp2"])
def test_endings_of_every_format_are_listed(ending: str) -> None:
    assert is_image(f"s3://photos/2019.old/face.{ending}")
