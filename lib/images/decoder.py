"""Encoded bytes → upright RGB pixels.

Colours are taken as they are stored: an embedded colour profile is not applied. Transparent pixels
are laid over white. Of an animation or a file of several pages, the first picture counts. What a
file is its first bytes say, never its name. Only EXIF turns a picture.
"""

import io
import warnings

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from lib.images.mending import mend, note_on
from lib.images.picture import TURNS, ImageError, Limits, Picture, Stored, Turn, upright
from lib.images.signatures import format_of, other_format_of

# Pillow warns of much that it then reads correctly; what it cannot read, it raises.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Pillow's own reader of uncompressed TIFFs takes planes of 16 bits for planes of 8.
TiffImagePlugin.READ_LIBTIFF = True

# "JPEG" includes MPO, of which it is a case.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
_SCALES = (8, 4, 2)
_BAND_PIXELS = 1 << 20

_RGB_MODES = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"}
_ALPHA_MODES = {"LA", "PA", "RGBA", "RGBa"}
_DEEP_GREY_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}

_DEEP_KEY = "PNG: a transparent colour of 16 bits is not supported"
_EXIF_AS_TEXT = "Raw profile type exif"
_BLACK_IS_ZERO = 1
_PLANES = 2
_TILE_SIDES = (322, 323)
# What Pillow says of files that are in order, but of a kind that it does not read.
_UNSUPPORTED = ("unsupported", "not yet supported", "cannot handle", "unknown pixel mode")


def decode(data: bytes, limits: Limits, at_least: int | None = None) -> Picture:
    """Decode a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, HEIF or JPEG 2000.

    Args:
        data: The encoded image.
        limits: What is refused before any pixel is decoded.
        at_least: Pixels that the longer side must keep; the picture is reduced 8, 4 or 2 times
            where that leaves as many. None keeps the full size. JPEGs are decoded at the reduced
            size; other formats are averaged over squares after decoding, to the same geometry.

    Raises:
        ImageError: The bytes give no picture. Nothing else is raised, whatever they hold.
    """
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"{len(data)} bytes; the limit is {limits.max_bytes}")
    # Pillow's own check is the earliest: for WebP it comes before the decoder allocates its canvas.
    # It refuses what is above twice this number.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels / 2  # type: ignore[assignment]
    try:
        return upright(_load(data, limits, at_least), note_on(data))
    # Pillow's parsers let errors of many kinds through (OSError, SyntaxError, ValueError, KeyError,
    # struct.error, zlib.error, ...); for hostile bytes no list of them would be complete.
    except Exception as error:
        refusal = _refusal(data, limits, error)
        mended = mend(data) if refusal.status == "decode_error" else None
        if mended is None:
            raise refusal from error
    try:
        return upright(_load(mended.data, limits, at_least), mended.note)
    except Exception as error:
        raise _refusal(mended.data, limits, error) from error


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a Pillow image as `decode` gives them of its file: uint8 (height, width, 3), upright.

    Pillow does not tell how many bits a grey pixel had in the file. So a transparent grey of a PNG of 4
    bits is not found, and BMPs of 8 bits that Pillow takes for black and white are not refused.

    Raises:
        ImageError: pixels of this kind are not supported.
        Exception: Pillow's own, of many kinds: it cannot load the image.
    """
    image.load()
    key = image.info.get("transparency")
    if key is not None and (image.mode in _DEEP_GREY_MODES or _is_deep(key)):
        raise ImageError("unsupported", _DEEP_KEY)
    image = _as_meant(image)
    return upright(Stored(_rgb_array(image, 1), image.size, 1, _turn(image))).pixels


def _is_deep(key: object) -> bool:
    """Whether a transparent colour is one of 16 bits, to whose pixels Pillow leaves 8."""
    return isinstance(key, tuple) and max(key, default=0) > 255


def _refusal(data: bytes, limits: Limits, error: Exception) -> ImageError:
    """Why the bytes give no picture, after the error of the attempt."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        size = str(error).partition(" exceeds")[0]
        return ImageError("too_large", f"{size}; the limit is {limits.max_pixels}")
    if isinstance(error, MemoryError):
        return ImageError("too_large", "not enough memory to decode the image")
    if not data:
        return ImageError("decode_error", "empty file")
    name = format_of(data)
    if name is None:
        other = other_format_of(data)
        if other:
            return ImageError("unsupported", f"{other} images are not supported")
        return ImageError("decode_error", "not an image")
    if isinstance(error, UnidentifiedImageError):
        error = _parser_error(data, name) or error
    reason = str(error) or type(error).__name__
    if any(words in reason.lower() for words in _UNSUPPORTED):
        return ImageError("unsupported", f"{name} of a kind that is not supported: {reason}")
    if isinstance(error, UnidentifiedImageError):
        return ImageError("decode_error", f"damaged {name}: its header cannot be read")
    return ImageError("decode_error", f"damaged {name}: {reason}")


def _parser_error(data: bytes, name: str) -> Exception | None:
    """The error that Pillow swallows while it looks for a parser."""
    try:
        Image.OPEN[name.upper().replace(" ", "")][0](io.BytesIO(data), "")
    except Exception as error:
        return error
    return None


def _load(data: bytes, limits: Limits, at_least: int | None) -> Stored:
    with _open(data) as image:
        _check_tiles(image, limits)
        size = image.size
        scale = _scale(size, at_least)
        drafted = _draft(image, scale)
        if drafted == scale and (pixels := _jpeg_pixels(image, data, scale)) is not None:
            return Stored(pixels, size, scale, _turn(image))
        # Pillow turns TIFFs while it loads them, by the orientation of XMP, too.
        image.info.pop("xmp", None)
        image.load()
        if image.format == "PNG":
            _scale_colour_key(image, depth=data[24])
        if image.format == "BMP":
            _check_bmp(image, data)
        image = _as_meant(image)
        return Stored(_rgb_array(image, scale // drafted), size, scale, _turn(image))


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        if format_of(data) != "HEIF":
            raise
    # Imported for the first HEIF only: it takes its time and memory.
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return Image.open(io.BytesIO(data), formats=("HEIF",))


def _scale(size: tuple[int, int], at_least: int | None) -> int:
    """The largest reduction that leaves the longer side its pixels; sizes are rounded up."""
    if at_least is None:
        return 1
    return next((scale for scale in _SCALES if -(-max(size) // scale) >= at_least), 1)


def _draft(image: Image.Image, scale: int) -> int:
    """Let the JPEG decoder reduce the picture, up to `scale` times; how many times it will."""
    if image.format not in ("JPEG", "MPO"):
        return 1
    width, height = image.size
    drafted = image.draft(None, (max(1, width // scale), max(1, height // scale)))
    return 1 if drafted is None else round(width / drafted[1][2])


def _jpeg_pixels(image: Image.Image, data: bytes, scale: int) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG, drafted at `scale`: those that Pillow gives, in less time.

    Pillow copies them twice. None where it has to say what they are, or what is wrong with them.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        return simplejpeg.decode_jpeg(
            data, "RGB", min_height=image.height, min_width=image.width, min_factor=scale
        )
    except ValueError:  # a warning of the decoder is enough
        return None


def _turn(image: Image.Image) -> Turn:
    """The turn of a loaded image; broken metadata is no reason to refuse the pixels.

    Pillow's `getexif` takes the orientation of XMP where EXIF has none. Programs that turn the
    pixels leave it behind.
    """
    try:
        exif = Image.Exif()
        exif.load(_exif(image))
        return TURNS[exif[ExifTags.Base.Orientation]]
    except Exception:
        return TURNS[1]


def _exif(image: Image.Image) -> bytes:
    text = image.info.get(_EXIF_AS_TEXT)
    if "exif" in image.info or text is None:
        return image.info.get("exif", b"")
    return bytes.fromhex("".join(text.split("\n")[3:]))


def _check_tiles(image: Image.Image, limits: Limits) -> None:
    """Refuse a TIFF whose tiles are above the limit."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, height = (image.tag_v2.get(tag, 0) for tag in _TILE_SIDES)
        if width * height > limits.max_pixels:
            raise ImageError(
                "too_large", f"a tile of {width}x{height} pixels; the limit is {limits.max_pixels}"
            )


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse the TIFFs that Pillow reads without an error, and wrongly."""
    tags = image.tag_v2
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _PLANES
    if image.mode in _DEEP_GREY_MODES and (bits != (16,) or photometric != _BLACK_IS_ZERO):
        raise ImageError(
            "unsupported", f"TIFF: grey of {bits[0]} bits of this kind is not supported"
        )
    if image.mode == "P" and image.info.get("compression") == "jpeg":
        raise ImageError("unsupported", "TIFF: JPEG of palette indices is not supported")
    if image.mode in ("LA", "PA") and planes:
        raise ImageError("unsupported", "TIFF: alpha in a plane of its own is not supported")


def _check_bmp(image: Image.Image, data: bytes) -> None:
    """Refuse the BMPs that Pillow reads without an error, and wrongly.

    From a palette of grey levels alone it guesses the bits of a pixel.
    """
    header_size = int.from_bytes(data[14:18], "little")
    at = 24 if header_size == 12 else 28
    bits = int.from_bytes(data[at : at + 2], "little")
    if {"1": 1, "L": 8}.get(image.mode, bits) != bits:
        raise ImageError("unsupported", f"BMP: such a palette of {bits} bits is not supported")


def _as_meant(image: Image.Image) -> Image.Image:
    """A loaded image, with what programs mean by its format."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image)
    return _opaque_if_unseen(image) if image.format == "BMP" else image


def _scale_colour_key(image: Image.Image, depth: int) -> None:
    """Bring the transparent colour of a PNG to the 8 bits that Pillow brings its pixels to."""
    key = image.info.get("transparency")
    if key is None or image.mode == "P":
        return
    if depth == 16:
        raise ImageError("unsupported", _DEEP_KEY)
    if image.mode == "L":
        image.info["transparency"] = key * 255 // (2**depth - 1)


def _opaque_if_unseen(image: Image.Image) -> Image.Image:
    """A BMP whose alpha is 0 everywhere comes from a program that left the byte unused."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def _rgb_array(image: Image.Image, factor: int) -> NDArray[np.uint8]:
    """The pixels as (h, w, 3) RGB, averaged over squares of `factor`.

    It goes through the image in bands, so that converting a large one takes little memory.
    """
    width, height = image.size
    pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    band_height = max(1, _BAND_PIXELS // (width * factor)) * factor
    for top in range(0, height, band_height):
        band = _rgb(image.crop((0, top, width, min(top + band_height, height))))
        if factor > 1:
            band = band.reduce(factor)
        pixels[top // factor : top // factor + band.height] = np.asarray(band)
    return pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY_MODES:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _RGB_MODES | _ALPHA_MODES:
        raise ImageError("unsupported", f"pixels of the kind {image.mode} are not supported")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
