#!/usr/bin/env bash
# Pillow 13.0.0's `Image.save("x.avif", exif=exif)` takes the orientation out of the `Exif` object of its
# caller (AVIF has a rotation of its own). Who writes renditions in several formats with one object gets
# those after the AVIF lying on their side: a JPEG written before it is shown 40 x 80, one written after it
# 80 x 40. JPEG, PNG, WebP and TIFF leave the object as it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import PIL
from PIL import Image, ImageOps

ORIENTATION = 0x0112
picture = Image.new("RGB", (80, 40), "teal")


def after_saving(kind):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture.save(f"picture.{kind}", exif=exif)
    return exif.get(ORIENTATION)


left = {kind: after_saving(kind) for kind in ("jpg", "png", "webp", "tif", "avif")}
print("pillow", PIL.__version__, "· orientation of the object after it was saved:", left)
exif = Image.Exif()
exif[ORIENTATION] = 6
shown = {}
for name in ("before.jpg", "between.avif", "after.jpg"):
    picture.save(name, exif=exif)
    with Image.open(name) as saved:
        shown[name] = ImageOps.exif_transpose(saved).size
print("three renditions by one object are shown:", shown)
as_stated = left == dict.fromkeys(("jpg", "png", "webp", "tif"), 6) | {"avif": None}
sys.exit(0 if as_stated and list(shown.values()) == [(40, 80), (40, 80), (80, 40)] else 1)
PYTHON
