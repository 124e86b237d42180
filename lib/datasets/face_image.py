"""The stored image of a labelled face: an upright JPEG of limited size."""

import io
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from lib.faces.crop import crop_faces
from lib.faces.detections import Detections
from lib.images import ImageError, Limits, Picture, decode
from lib.network_input import CropSpec

QUALITY = 95
"""JPEG quality of images that are encoded again."""

LIMITS = Limits()
LONGEST_JPEG_SIDE = 65_500


class FaceImage(NamedTuple):
    """A face to be stored.

    Attributes:
        image: the encoded JPEG.
        width: of the original, or of the face's box, upright, in pixels.
        height: as the width.
    """

    image: bytes
    width: int
    height: int


def face_image(data: bytes, size: int) -> FaceImage:
    """Decode an image, and encode it as a small, upright JPEG.

    The bytes are kept if they are a sound grey or colour JPEG without rotation whose shorter side has at
    most `size` pixels.

    Args:
        data: the encoded image, of any format that `images.decode` knows.
        size: pixels of the shorter side above which the image is shrunk to it.

    Raises:
        ImageError: the bytes give no picture.
    """
    header = _jpeg_header(data)
    picture = decode(data, LIMITS, None if header is None else _longer_side(header, size))
    small = min(picture.width, picture.height) <= size
    keep = small and header is not None and header.is_plain and picture.note is None
    jpeg = data if keep else _encode(_shrink(picture, size))
    return FaceImage(jpeg, picture.width, picture.height)


def face_in_box(picture: Picture, box: NDArray[np.float64], size: int) -> FaceImage:
    """Cut a face out of a picture, and encode it as a JPEG.

    What is cut out is the square around the box's centre with the box's longer side; what lies outside
    the picture is black.

    Args:
        picture: decoded at its full size.
        box: (4,) x0, y0, x1, y1 in pixels of the picture.
        size: pixels of the square's side above which it is shrunk to it.

    Returns:
        The image, and the size of the part of the box that lies in the picture; 0: none does.
    """
    inside = np.clip(box, 0, [picture.width, picture.height] * 2)
    width, height = np.rint(inside[2:] - inside[:2]).astype(int).tolist()
    extent = box[2:] - box[:2]
    side = int(np.clip(np.rint(extent.max()), 1, size))
    face = Detections(
        np.concatenate([box[:2], extent])[np.newaxis].astype(np.float32),
        np.ones(1, np.float32),
        np.zeros((1, 5, 2), np.float32),
    )
    (crop,) = crop_faces(picture.pixels, face, CropSpec(side, "box"))
    return FaceImage(_encode(crop), width, height)


class _JpegHeader(NamedTuple):
    width: int
    height: int
    is_plain: bool


def _jpeg_header(data: bytes) -> _JpegHeader | None:
    """The header; None for other formats and damaged headers."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            plain = image.format == "JPEG" and image.mode in ("L", "RGB") and orientation == 1
            return _JpegHeader(*image.size, plain)
    except Exception:  # Pillow raises errors of any kind for damaged headers
        return None


def _longer_side(header: _JpegHeader, size: int) -> int:
    """Pixels of the longer side when the shorter one has `size`: the size to decode at."""
    shorter, longer = sorted((header.width, header.height))
    return -(-size * longer // max(1, shorter))


def _shrink(picture: Picture, size: int) -> NDArray[np.uint8]:
    shorter = min(picture.width, picture.height)
    if shorter <= size:
        return picture.pixels
    target = [max(1, round(side * size / shorter)) for side in (picture.width, picture.height)]
    resized = cv2.resize(picture.pixels, target, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    if max(pixels.shape) > LONGEST_JPEG_SIDE:
        raise ImageError("unsupported", f"no JPEG has a side of {max(pixels.shape)} pixels")
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes()
