#!/usr/bin/env bash
# The same detector, the same photograph: what mtcnn 1.0.0 calls `left_eye`, the eye at the left of the picture, is
# the `right_eye` of DeepFace 0.0.103, which runs it and names eyes as the person does. Faces that are aligned by the
# names of the one with the template of the other are turned by half a turn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet deepface==0.0.103 mtcnn==1.0.0 tensorflow==2.21.0 tf_keras==2.21.0 flask==3.1.3 \
  numpy==2.4.6 opencv-python-headless==5.0.0.93 matplotlib==3.11.2
cd "$folder"
DEEPFACE_HOME="$folder" TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import matplotlib
from deepface import DeepFace
from mtcnn import MTCNN

photograph = str(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"))
of_mtcnn = MTCNN().detect_faces(cv2.imread(photograph)[:, :, ::-1])[0]["keypoints"]
of_deepface = DeepFace.extract_faces(photograph, detector_backend="mtcnn")[0]["facial_area"]
print("mtcnn", version("mtcnn"), "· deepface", version("deepface"), "· x and y of the eyes")
eyes = {}
for name, landmarks in ("mtcnn", of_mtcnn), ("deepface", of_deepface):
    eyes[name] = {side: [int(value) for value in landmarks[f"{side}_eye"]] for side in ("left", "right")}
    print(f"{name}: {eyes[name]}")


def apart(one, other):
    return max(abs(a - b) for a, b in zip(eyes["mtcnn"][one], eyes["deepface"][other]))


same = max(apart("left", "right"), apart("right", "left"))
print(f"swapped they are {same} pixels apart, as they are named {apart('left', 'left')}")
sys.exit(0 if same <= 5 and apart("left", "left") > 50 and eyes["mtcnn"]["left"][0] < eyes["mtcnn"]["right"][0] else 1)
PYTHON
