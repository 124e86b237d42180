"""Writes docs/formats.md: what comes of every format and variant.

python -m tests.formats_page
"""

from collections.abc import Iterable

from lib.images import ImageError, Limits, decode
from tests.image_variants import Variant, variants
from tests.ray_head import PROJECT

PAGE = PROJECT / "docs" / "formats.md"
READ, NOTED, WRONG = "read", "read, with a note in `error`", "wrong pixels"
INTRODUCTION = """\
# Formats of images

What a file is, its first bytes say; a wrong ending of its name does no harm. Of animations and files of
several pages the first picture counts. Transparent pixels are laid over white. Only EXIF turns a
picture, and in AVIF and HEIF their own rotation; an orientation in XMP is ignored, because programs
that turn the pixels leave it behind.

A test makes every variant below, decodes it and compares the pixels with those that it was made from;
this page is written by `python -m tests.formats_page`. What holds for a row holds for its interlaced
form (PNG), and for planes one after the other, strips and tiles, both byte orders, and no compression,
LZW, Deflate and PackBits (TIFF), unless a row says otherwise. An image that is not read gets the status
`unsupported`; `error` says what it is.

Damage that costs no pixel does no harm: chunks of a PNG that are not needed may be damaged or of any
size, and a JPEG may lack its end marker. A file that is cut in its pixels is a `decode_error`, even where
only the last rows are missing.

Not tried, as nothing here writes them: JPEGs with arithmetic coding.

| format | variant | result |
| --- | --- | --- |
"""


def outcome(variant: Variant) -> str:
    """`READ` or `NOTED`, the status, or `WRONG`."""
    try:
        picture = decode(variant.data, Limits())
    except ImageError as error:
        return f"`{error.status}`"
    if not variant.is_shown_by(picture.pixels):
        return WRONG
    return READ if picture.note is None else NOTED


def outcomes(files: Iterable[Variant]) -> dict[tuple[str, str], set[str]]:
    """Format and name of each variant → what came of its files."""
    found: dict[tuple[str, str], set[str]] = {}
    for variant in files:
        found.setdefault((variant.format, variant.name), set()).add(outcome(variant))
    return found


def page(found: dict[tuple[str, str], set[str]]) -> str:
    """The whole page."""
    rows = []
    for (format_, name), results in found.items():
        plain = name.removesuffix(", interlaced").removesuffix(", planes")
        if plain == name or found.get((format_, plain)) != results:
            rows.append(f"| {format_} | {name} | {', '.join(sorted(results))} |\n")
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(outcomes(variants())), "utf-8")
