"""Every format × variant of an image file that a writer here can make, with the right pixels."""

import io
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests import nasty
from tests.made_bmps import bmps
from tests.made_pngs import pngs
from tests.made_tiffs import BLACK_IS_ZERO, CMYK, PALETTE, RGB, WHITE_IS_ZERO, YCBCR, Layout, tiff

Array = NDArray[np.uint8]


class Variant(NamedTuple):
    """A file, and what must come of it.

    Attributes:
        format: its name.
        name: of the variant; several files may share it.
        data: the encoded image.
        expected: (h, w, 3), its right pixels.
        lossy: the pixels differ a little.
    """

    format: str
    name: str
    data: bytes
    expected: Array
    lossy: bool = False

    def is_shown_by(self, pixels: Array) -> bool:
        """Whether these are the right pixels."""
        if pixels.shape != self.expected.shape:
            return False
        difference = np.abs(pixels.astype(int) - self.expected)
        return bool(difference.mean() <= 5 if self.lossy else difference.max() <= 3)


def picture() -> Array:
    """(43, 61, 3): sides that fill no block, no two rows and no two columns alike."""
    ramp = nasty.quadrants(61, 43).astype(int)
    ramp[:, :, 0] += np.arange(61) // 2
    ramp[:, :, 1] += np.arange(43)[:, None] // 2
    return ramp.clip(0, 255).astype(np.uint8)


PICTURE = picture()
FEW = nasty.quadrants(61, 43)
GREY = np.ascontiguousarray(PICTURE[:, :, 1:2])
GREYS = GREY.repeat(3, axis=2)
ALPHA = np.linspace(0, 255, 61).astype(np.uint8)[None, :, None].repeat(43, axis=0)


def over_white(pixels: Array, alpha: Array = ALPHA) -> Array:
    """Pixels laid over white."""
    share = alpha / 255
    return np.round(pixels * share + 255 * (1 - share)).astype(np.uint8)


def variants() -> Iterator[Variant]:
    """All of them."""
    yield from _jpegs()
    for name, data, expected in pngs(PICTURE, FEW, ALPHA):
        yield Variant("PNG", name, data, expected)
    yield from _webps()
    yield from _gifs()
    for name, data, expected in bmps(PICTURE, FEW, ALPHA):
        yield Variant("BMP", name, data, expected)
    yield from _tiffs()
    yield from _avifs()
    yield from _heifs()
    yield from _jpeg_2000s()


def _rgb(pixels: Array) -> Image.Image:
    return Image.fromarray(pixels)


def _jpegs() -> Iterator[Variant]:
    def jpeg(name: str, data: bytes, expected: Array = PICTURE) -> Variant:
        return Variant("JPEG", name, data, expected, lossy=True)

    yield jpeg("grey", nasty.jpeg(GREY[:, :, 0]), GREYS)
    for ratio in ("444", "440", "422", "420", "411"):
        code = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{ratio}")
        for progressive in (0, 1):
            options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, code, cv2.IMWRITE_JPEG_QUALITY, 95]
            options += [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
            _, data = cv2.imencode(".jpg", PICTURE[:, :, ::-1], options)
            kind = ", progressive" if progressive else ""
            yield jpeg(f"YCbCr {':'.join(ratio)}{kind}", data.tobytes())
    yield jpeg("restart markers", nasty.jpeg(PICTURE, restart_marker_blocks=2))
    yield jpeg("RGB", nasty.jpeg(PICTURE, keep_rgb=True))
    cmyk = nasty.jpeg(_rgb(PICTURE).convert("CMYK"))
    yield jpeg("CMYK, Adobe", cmyk)
    yield jpeg("YCCK, Adobe", _ycck())
    yield jpeg("12 bits", _twelve_bits())
    yield jpeg("without its end marker", nasty.jpeg(PICTURE)[:-2])
    yield Variant("MPO", "first of two pictures", nasty.animated(PICTURE, "MPO"), PICTURE, True)


def _ycck() -> bytes:
    """What Pillow writes as CMYK, with YCC in place of CMY and the Adobe marker saying so."""
    ycc = np.asarray(_rgb(255 - PICTURE).convert("YCbCr"))
    data = nasty.jpeg(Image.fromarray(255 - np.dstack([ycc, np.full_like(GREY, 255)]), "CMYK"))
    end = data.index(b"Adobe") + 12
    return data[: end - 1] + b"\2" + data[end:]


def _twelve_bits() -> bytes:
    """The header of a JPEG of 12 bits; no writer here makes the rest."""
    data = nasty.jpeg(GREY[:, :, 0])
    start = data.index(b"\xff\xc0")
    return data[:start] + b"\xff\xc1\0\x0b\x0c" + data[start + 5 :]


def _webps() -> Iterator[Variant]:
    rgba = np.dstack([PICTURE, ALPHA])
    lossy = {"lossless": False, "quality": 100}
    yield Variant("WebP", "lossless", nasty.encoded(PICTURE, "WEBP"), PICTURE)
    yield Variant("WebP", "lossy", nasty.encoded(PICTURE, "WEBP", **lossy), PICTURE, True)
    yield Variant(
        "WebP", "lossless, alpha", nasty.encoded(rgba, "WEBP", exact=True), over_white(PICTURE)
    )
    data = nasty.encoded(rgba, "WEBP", exact=True, **lossy)
    yield Variant("WebP", "lossy, alpha", data, over_white(PICTURE), True)
    yield Variant("WebP", "animated", nasty.animated(PICTURE, "WEBP"), PICTURE)


def _gifs() -> Iterator[Variant]:
    few = _rgb(FEW).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    hidden = FEW.copy()
    first = few.getpixel((0, 0))
    hidden[np.asarray(few) == first] = 255
    for name, interlace in (("one picture", 0), ("interlaced", 1)):
        yield Variant("GIF", name, nasty.encoded(few, "GIF", interlace=interlace), FEW)
    yield Variant("GIF", "grey", nasty.encoded(GREY[:, :, 0], "GIF"), GREYS)
    yield Variant("GIF", "transparent", nasty.encoded(few, "GIF", transparency=first), hidden)
    yield Variant("GIF", "animated", nasty.animated(FEW, "GIF"), FEW)


def _tiffs() -> Iterator[Variant]:
    index = _rgb(FEW).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    colours = np.array((index.getpalette("RGB") or []) + 768 * [0])[:768].reshape(256, 3)
    colour_map = (320, "H", tuple(257 * int(level) for level in colours.T.ravel()))
    premultiplied = np.round(PICTURE * (ALPHA / 255)).astype(np.uint8)
    ycc = np.asarray(_rgb(PICTURE).convert("YCbCr"))
    cmyk = np.dstack([255 - PICTURE, np.zeros_like(GREY)])
    kinds: list[tuple[str, Array, int, tuple[int, ...], Array]] = [
        ("grey", GREY, BLACK_IS_ZERO, (), GREYS),
        ("grey, white is zero", 255 - GREY, WHITE_IS_ZERO, (), GREYS),
        ("grey and alpha", np.dstack([GREY, ALPHA]), BLACK_IS_ZERO, (2,), over_white(GREYS)),
        ("RGB", PICTURE, RGB, (), PICTURE),
        ("RGB and a spare channel", np.dstack([PICTURE, ALPHA]), RGB, (0,), PICTURE),
        ("RGBA", np.dstack([PICTURE, ALPHA]), RGB, (2,), over_white(PICTURE)),
        ("RGBA, premultiplied", np.dstack([premultiplied, ALPHA]), RGB, (1,), over_white(PICTURE)),
        ("CMYK", cmyk, CMYK, (), PICTURE),
        ("YCbCr", ycc, YCBCR, (), PICTURE),
        ("palette", np.asarray(index)[:, :, None], PALETTE, (), FEW),
    ]
    for (kind, samples, photometric, extra, expected), layout in itertools.product(
        kinds, _layouts()
    ):
        tags = {PALETTE: (colour_map,), YCBCR: ((530, "H", (1, 1)),)}.get(photometric, ())
        for bits, deep in _depths(samples, photometric, layout):
            if layout.compression == "jpeg":
                if not layout.planar and samples.shape[2] not in (1, 3):
                    continue  # no writer here makes JPEGs of two or four channels as they are
                # The writer makes YCbCr of RGB by itself.
                deep = PICTURE if photometric == YCBCR and not layout.planar else deep
            planes = ", planes" if layout.planar else ""
            jpeg = ", JPEG" if layout.compression == "jpeg" else ""
            data = tiff(deep, photometric, layout, extra, tags)
            name = f"{kind}, {bits}{jpeg}{planes}"
            yield Variant("TIFF", name, data, expected, lossy=bool(jpeg))
    grey_12 = np.frombuffer(_packed_12(GREY[:, :60, 0]), np.uint8).reshape(43, 90, 1)
    data = tiff(grey_12, BLACK_IS_ZERO, tags=((256, "I", (60,)), (258, "H", (12,))))
    yield Variant("TIFF", "grey, 12 bits", data, GREYS[:, :60])
    one_bit = np.where(GREYS > 120, 255, 0).astype(np.uint8)
    for compression in ("raw", "group3", "group4", "packbits", "tiff_lzw"):
        data = nasty.encoded(Image.fromarray(one_bit).convert("1"), "TIFF", compression=compression)
        yield Variant("TIFF", "1 bit, fax compressions, too", data, one_bit)
    yield Variant("TIFF", "first of two pages", nasty.animated(PICTURE, "TIFF"), PICTURE)


def _layouts() -> Iterator[Layout]:
    for compression, planar, tiled, order, predictor in itertools.product(
        ("none", "lzw", "deflate", "packbits", "jpeg"), (False, True), (False, True), "<>", (1, 2)
    ):
        if predictor == 1 or compression in ("lzw", "deflate"):
            yield Layout(compression, planar, tiled, order, predictor)  # type: ignore[arg-type]


def _depths(samples: Array, photometric: int, layout: Layout) -> Iterator[tuple[str, NDArray[Any]]]:
    """The samples in all types that make sense."""
    yield "8 bits", samples
    if layout.compression == "jpeg" or photometric in (PALETTE, YCBCR):
        return
    yield "16 bits", samples.astype(np.uint16) * 256 + 37
    yield "32 bits", samples.astype(np.uint32) * 2**24 + 37
    if layout.predictor == 1:
        yield "float", samples.astype(np.float32) / 255


def _packed_12(grey: Array) -> bytes:
    """Samples of 12 bits, two in three bytes."""
    pairs = (grey.astype(int) * 16).reshape(-1, 2)
    return b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)


def _avifs() -> Iterator[Variant]:
    for ratio in ("4:4:4", "4:2:2", "4:2:0"):
        data = nasty.encoded(PICTURE, "AVIF", quality=95, subsampling=ratio, speed=8)
        yield Variant("AVIF", f"YCbCr {ratio}", data, PICTURE, True)
    grey = nasty.encoded(GREY[:, :, 0], "AVIF", quality=95, speed=8)
    yield Variant("AVIF", "grey", grey, GREYS, True)
    rgba = nasty.encoded(np.dstack([PICTURE, ALPHA]), "AVIF", quality=95, speed=8)
    yield Variant("AVIF", "alpha", rgba, over_white(PICTURE), True)
    for depth in (10, 12):
        deep = (PICTURE[:, :, ::-1].astype(np.uint16) * 257) >> (16 - depth)
        options = [cv2.IMWRITE_AVIF_DEPTH, depth, cv2.IMWRITE_AVIF_QUALITY, 95]
        _, encoded = cv2.imencode(".avif", deep, [*options, cv2.IMWRITE_AVIF_SPEED, 8])
        yield Variant("AVIF", f"{depth} bits", encoded.tobytes(), PICTURE, True)
    animated = nasty.animated(PICTURE, "AVIF", quality=95, speed=8)
    yield Variant("AVIF", "animated", animated, PICTURE, True)


def _heifs() -> Iterator[Variant]:
    import pillow_heif

    def heif(pixels: NDArray[Any], mode: str) -> bytes:
        height, width = pixels.shape[:2]
        file = pillow_heif.from_bytes(mode, (width, height), pixels.tobytes())
        buffer = io.BytesIO()
        file.save(buffer, quality=95)
        return buffer.getvalue()

    yield Variant("HEIF", "HEVC", heif(PICTURE, "RGB"), PICTURE, True)
    yield Variant("HEIF", "HEVC, grey", heif(GREY, "L"), GREYS, True)
    rgba = np.dstack([PICTURE, ALPHA])
    yield Variant("HEIF", "HEVC, alpha", heif(rgba, "RGBA"), over_white(PICTURE), True)
    deep = PICTURE.astype(np.uint16) * 257
    yield Variant("HEIF", "HEVC, 10 bits", heif(deep, "RGB;16"), PICTURE, True)


def _jpeg_2000s() -> Iterator[Variant]:
    def jpeg(name: str, pixels: Any, expected: Array, **options: object) -> Iterator[Variant]:
        for kind, bare in (("JP2", False), ("codestream", True)):
            data = nasty.encoded(pixels, "JPEG2000", no_jp2=bare, **options)
            lossy = bool(options.get("irreversible"))
            yield Variant("JPEG 2000", f"{name}, {kind}", data, expected, lossy)

    yield from jpeg("grey", GREY[:, :, 0], GREYS)
    yield from jpeg("grey and alpha", np.dstack([GREY, ALPHA]), over_white(GREYS))
    yield from jpeg("RGB", PICTURE, PICTURE)
    yield from jpeg("RGB, lossy", PICTURE, PICTURE, irreversible=True)
    yield from jpeg("RGB, tiles", PICTURE, PICTURE, tile_size=(32, 32))
    yield from jpeg("RGBA", np.dstack([PICTURE, ALPHA]), over_white(PICTURE))
    yield from jpeg("grey, 16 bits", GREY[:, :, 0].astype(np.uint16) * 256 + 37, GREYS)
    _, data = cv2.imencode(".jp2", PICTURE[:, :, ::-1].astype(np.uint16) * 256 + 37)
    yield Variant("JPEG 2000", "RGB, 16 bits, JP2", data.tobytes(), PICTURE, True)
