#!/usr/bin/env bash
# Keras 3.15.1 reads a grey PNG of 16 bits, as scanners write them, in two ways: `image_dataset_from_directory`
# gives its grey values scaled to 0..255, `load_img` cuts all above 255 of 65,535 off, so that the picture is
# white: Pillow 13.0.0's `convert("RGB")` does that. A model that learnt from the one sees white pictures
# through the other; nothing is said. `load_img(color_mode="grayscale")` gives the values up to 65,535.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1 pillow==13.0.0
cd "$folder"
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import keras
import numpy as np
import PIL
from PIL import Image

ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
Path("scans").mkdir()
Image.fromarray(ramp).save("scans/scan.png")

data = keras.utils.image_dataset_from_directory(
    "scans", labels=None, image_size=(64, 64), batch_size=None, verbose=False
)
rows = {
    "image_dataset_from_directory": next(iter(data)).numpy()[0, :, 0],
    "load_img": keras.utils.img_to_array(keras.utils.load_img("scans/scan.png"))[0, :, 0],
    "load_img, grayscale": keras.utils.img_to_array(
        keras.utils.load_img("scans/scan.png", color_mode="grayscale")
    )[0, :, 0],
}
print("keras", keras.__version__, "· pillow", PIL.__version__, "· a ramp from black to white:")
for name, row in rows.items():
    print(f"{name}: {row[::9].astype(int).tolist()}")
scaled, white, full = rows.values()
as_stated = np.abs(scaled - ramp[0] / 257).max() < 1 and (white[1:] == 255).all() and (full == ramp[0]).all()
sys.exit(0 if as_stated else 1)
PYTHON
