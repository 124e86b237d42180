"""The demonstration archive: files of several kinds, made from one public-domain photograph.

The photograph is the portrait of Grace Hopper (United States Navy) among matplotlib's sample data.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import ExifTags, Image


def make_demo(folder: str) -> None:
    """Write the files of `EXPECTED` into the folder; their bytes are deterministic."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    portrait = _portrait()
    for name, (_, make) in _FILES.items():
        (target / name).write_bytes(make(portrait))


def _portrait() -> Image.Image:
    path = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    with Image.open(path) as image:
        return image.convert("RGB")


def _jpeg(image: Image.Image, exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, exif=exif or Image.Exif())
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _resized(portrait: Image.Image, factor: float) -> Image.Image:
    width, height = portrait.size
    size = round(width * factor), round(height * factor)
    return portrait.resize(size, Image.Resampling.LANCZOS)


def _two_faces(portrait: Image.Image) -> Image.Image:
    montage = Image.new("RGB", (2 * portrait.width, portrait.height))
    montage.paste(portrait, (0, 0))
    montage.paste(portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (portrait.width, 0))
    return montage


def _rotated_by_exif(portrait: Image.Image) -> bytes:
    """Stored rotated by 90°, with the orientation in the EXIF."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return _jpeg(portrait.transpose(Image.Transpose.ROTATE_90), exif)


def _texture(portrait: Image.Image) -> Image.Image:
    """Waves of three colours."""
    y, x = np.mgrid[: portrait.height, : portrait.width]
    waves = np.sin([x / 19 + y / 43, x / 31 - y / 23, (x + y) / 57])
    return Image.fromarray(np.round(127.5 * (waves + 1)).astype(np.uint8).transpose(1, 2, 0))


def _truncated(portrait: Image.Image) -> bytes:
    data = _jpeg(portrait)
    return data[: len(data) // 2]


_FILES: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "greyscale.jpg": ("ok", lambda portrait: _jpeg(portrait.convert("L"))),
    "no_face.jpg": ("no_face", lambda portrait: _jpeg(_texture(portrait))),
    "not_an_image.jpg": ("decode_error", lambda _: b"A text file with the name of a photograph.\n"),
    "portrait.jpg": ("ok", _jpeg),
    "portrait.png": ("ok", lambda portrait: _png(_resized(portrait, 0.75))),
    "portrait_large.jpg": ("ok", lambda portrait: _jpeg(_resized(portrait, 3))),
    "portrait_small.jpg": ("ok", lambda portrait: _jpeg(_resized(portrait, 0.5))),
    "rotated_by_exif.jpg": ("ok", _rotated_by_exif),
    "truncated.jpg": ("decode_error", _truncated),
    "two_faces.jpg": ("ok", lambda portrait: _jpeg(_two_faces(portrait))),
}
EXPECTED = {name: status for name, (status, _) in _FILES.items()}
"""File name → the expected status of its label."""


if __name__ == "__main__":
    make_demo(sys.argv[1])
