#!/usr/bin/env bash
# Pillow 13.0.0 opens an uncompressed RGB TIFF of 16 bits whose planes lie one after another (tifffile 2026.3.3:
# `planarconfig="separate"`) and gives other colours without an error, wrong by up to 253 of 255. The same picture
# with interleaved channels, or with 8 bits, is right; OpenCV 5.0.0 reads all of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 tifffile==2026.3.3 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import cv2
import numpy as np
import PIL
import tifffile
from PIL import Image

red = np.tile(np.linspace(0, 60000, 60), (40, 1))
picture = np.stack([red, red / 8, red / 8], axis=2).astype(np.uint16)
of_8_bits = (picture >> 8).astype(np.uint8)
planes = [np.ascontiguousarray(np.moveaxis(of, 2, 0)) for of in (picture, of_8_bits)]
tifffile.imwrite("planar16.tif", planes[0], photometric="rgb", planarconfig="separate")
tifffile.imwrite("planar8.tif", planes[1], photometric="rgb", planarconfig="separate")
tifffile.imwrite("interleaved16.tif", picture, photometric="rgb")

print("pillow", PIL.__version__, "· opencv", cv2.__version__, "· tifffile", tifffile.__version__)
worst = {}
for name in ("planar16", "planar8", "interleaved16"):
    read = {"pillow": np.asarray(Image.open(f"{name}.tif").convert("RGB")), "opencv": cv2.imread(f"{name}.tif")[:, :, ::-1]}
    for by, pixels in read.items():
        worst[by, name] = int(np.abs(pixels.astype(int) - of_8_bits).max())
        print(f"{name} by {by}: wrong by at most {worst[by, name]} of 255; its brightest pixel {pixels[20, 59].tolist()}")
noise = worst.pop(("pillow", "planar16"))
sys.exit(0 if noise > 100 and max(worst.values()) <= 1 else 1)
PYTHON
