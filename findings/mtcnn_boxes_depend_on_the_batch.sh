#!/usr/bin/env bash
# mtcnn 1.0.0: a photograph has another box, landmarks and confidence in a batch with a larger picture than
# alone, because pictures of a batch are padded to one size: labels of an archive depend on which pictures happen to
# stand together. Beside a copy of itself nothing changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mtcnn==1.0.0 tensorflow==2.21.0 numpy==2.4.6 pillow==13.0.0 matplotlib==3.11.2
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import matplotlib
import numpy as np
from mtcnn import MTCNN
from PIL import Image

photograph = Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"))
pixels, larger = np.asarray(photograph), np.asarray(photograph.resize((768, 900)))
detector = MTCNN()
faces = {
    "alone": detector.detect_faces(pixels),
    "beside a copy": detector.detect_faces([pixels, pixels])[0],
    "beside a larger one": detector.detect_faces([pixels, larger])[0],
}
print("mtcnn", version("mtcnn"), "· tensorflow", version("tensorflow"))
seen = {}
for name, [face] in faces.items():
    eye = [int(value) for value in face["keypoints"]["left_eye"]]
    seen[name] = [int(value) for value in face["box"]], eye, round(float(face["confidence"]), 3)
    print(f"{name}: box, left eye, confidence: {seen[name]}")
alone, copy, other = seen.values()
sys.exit(0 if alone == copy and alone[0] != other[0] and alone[2] != other[2] else 1)
PYTHON
