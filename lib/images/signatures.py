"""What bytes are, by their first ones."""

_HEIF_BRANDS = (b"heic", b"heix", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_READ_MAGIC = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    *((4, b"ftyp" + brand, "HEIF") for brand in _HEIF_BRANDS),
)
_OTHER_MAGIC = (
    (4, b"ftypcrx ", "Canon raw"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\x01\0", "icon"),
    (0, b"icns", "icon"),
    (0, b"DDS ", "DirectDraw"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"qoif", "QOI"),
    (0, b"P5\n", "PNM"),
    (0, b"P6\n", "PNM"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF-", "PDF"),
    (128, b"DICM", "DICOM"),
)


def format_of(data: bytes) -> str | None:
    """The name of the format, if it is one that is read here."""
    return _match(data, _READ_MAGIC)


def other_format_of(data: bytes) -> str | None:
    """The name of the format, if it is one that is not read here."""
    return _match(data, _OTHER_MAGIC) or _svg(data)


def _match(data: bytes, table: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for at, magic, name in table if data.startswith(magic, at)), None)


def _svg(data: bytes) -> str | None:
    start = data[:4096].lstrip()
    return "SVG" if start.startswith((b"<svg", b"<?xml")) and b"<svg" in start else None
