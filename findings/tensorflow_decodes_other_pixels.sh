#!/usr/bin/env bash
# TensorFlow 2.21.0 decodes a JPEG to other pixels than Pillow 13.0.0 (libjpeg-turbo, too): its default is the
# fast inverse DCT. On a photograph 60% or more of the values differ, by 1 on average and by up to 6, as does
# what `keras.utils.image_dataset_from_directory` trains on from what `keras.utils.load_img` gives at
# inference. With `dct_method="INTEGER_ACCURATE"` every value is equal; Keras has no way to ask for it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1 pillow==13.0.0 matplotlib==3.11.2
cd "$folder"
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import shutil
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
import PIL
import tensorflow as tf

source = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
Path("photos/one").mkdir(parents=True)
shutil.copy(source, "photos/one")
by_pillow = np.asarray(keras.utils.load_img(source)).astype(int)


def compared(name, pixels):
    difference = np.abs(np.asarray(pixels).astype(int) - by_pillow)
    print(f"{name}: {np.mean(difference > 0):.0%} differ, by {difference.mean():.2f} on average, {difference.max()} at most")
    return difference


print("tensorflow", tf.__version__, "· keras", keras.__version__, "· pillow", PIL.__version__)
encoded = source.read_bytes()
default = compared("tf.io.decode_jpeg", tf.io.decode_jpeg(encoded))
accurate = compared("the same, INTEGER_ACCURATE", tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE"))
size = by_pillow.shape[:2]
folder = keras.utils.image_dataset_from_directory(
    "photos", labels=None, image_size=size, batch_size=None, shuffle=False, verbose=False
)
keras_folder = compared("image_dataset_from_directory", next(iter(folder)))
as_stated = np.mean(default > 0) > 0.6 and 0.8 < default.mean() < 1.2 and default.max() == 6
sys.exit(0 if as_stated and not accurate.any() and np.array_equal(keras_folder, default) else 1)
PYTHON
