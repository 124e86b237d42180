#!/usr/bin/env bash
# Pillow 13.0.0: `image.save("x.tif", exif=image.getexif())` writes a TIFF that cannot be read where the EXIF holds the
# width and height of another picture, as photo editors leave them in what they export smaller: the file says that
# size, but holds the pixels of the image. JPEG, PNG, WebP and AVIF with the same EXIF are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 matplotlib==3.11.2
cd "$folder"
"$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import matplotlib
import PIL
from PIL import ExifTags, Image

exif = Image.Exif()
exif[ExifTags.Base.ImageWidth], exif[ExifTags.Base.ImageLength] = 3840, 5760
source = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
with Image.open(source) as photograph:
    photograph.save("exported.jpg", exif=exif)

print("pillow", PIL.__version__)
seen = {}
with Image.open("exported.jpg") as exported:
    print("exported.jpg:", exported.size, "· its EXIF says 3840 x 5760")
    for format in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
        exported.save(f"copy.{format.lower()}", format, exif=exported.getexif())
        with Image.open(f"copy.{format.lower()}") as copy:
            try:
                copy.load()
                seen[format] = copy.size == exported.size
            except OSError as error:
                print(f"{format}: {copy.size}, {error}")
                seen[format] = False
print("right:", seen)
sys.exit(0 if seen == {"JPEG": True, "PNG": True, "WEBP": True, "AVIF": True, "TIFF": False} else 1)
PYTHON
