"""Every format × variant of an image file: the right pixels, or the status `unsupported`."""

import pytest

from lib.archive.entry import is_image
from tests.formats_page import NOTED, PAGE, READ, outcomes, page
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


def test_the_page_says_what_happens(found: Found) -> None:
    assert PAGE.read_text("utf-8") == page(found), "write it: python -m tests.formats_page"


@pytest.mark.parametrize("ending", ["jfif", "JPE", "pjpeg", "avif", "HEIC", "heif", "jp2"])
def test_endings_of_every_format_are_listed(ending: str) -> None:
    assert is_image(f"s3://photos/2019.old/face.{ending}")
