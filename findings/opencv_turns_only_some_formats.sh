#!/usr/bin/env bash
# OpenCV 5.0.0 turns pictures upright by their EXIF orientation in JPEG, PNG and WebP, but not in AVIF
# (which comes out lying on its side), and `cv2.imread` gives None for a TIFF that is to be turned by 90
# degrees, though `cv2.imdecode` reads the same bytes upright. Pillow 13.0.0 wrote the files; it reads all
# five upright.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet opencv-python-headless==5.0.0.93 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys

import cv2
import numpy as np
import PIL
from PIL import Image, ImageOps


def shape(pixels):
    return None if pixels is None else pixels.shape[1::-1]


print("opencv", cv2.__version__, "· pillow", PIL.__version__, "· each picture is shown 40 x 80")
seen = {}
for kind in ("jpg", "png", "webp", "avif", "tif"):
    path = f"picture.{kind}"
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by 90 degrees: 80 x 40 is shown as 40 x 80
    Image.new("RGB", (80, 40), "teal").save(path, exif=orientation)
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture).size
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    seen[kind] = upright, shape(cv2.imread(path)), shape(decoded)
    print(kind, "· pillow", upright, "· imread", seen[kind][1], "· imdecode", seen[kind][2])
shown, lying = (40, 80), (80, 40)
stated = dict.fromkeys(("jpg", "png", "webp"), (shown, shown, shown))
sys.exit(0 if seen == stated | {"avif": (shown, lying, lying), "tif": (shown, None, shown)} else 1)
PYTHON
