#!/usr/bin/env bash
# img2dataset 1.47.0 stores a phone's photographs lying on their side for good: it decodes them without
# their EXIF orientation, encodes them anew and leaves the EXIF block out, by default as with
# `resize_mode="no"`. The sample's JSON file keeps the orientation as a text. A photograph of 80 x 40 pixels
# that viewers show 40 x 80 becomes one of 80 x 40 without an orientation.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet img2dataset==1.47.0 pillow==13.0.0
mkdir "$folder/site"
"$folder/venv/bin/python" -m http.server 5078 --bind 127.0.0.1 --directory "$folder/site" >"$folder/log" 2>&1 &
server=$!
cd "$folder"
cat >run.py <<'PYTHON'
import json
import socket
import sys
import time
from importlib.metadata import version
from pathlib import Path

from img2dataset import download
from PIL import Image, ImageOps


def of(path):
    with Image.open(path) as picture:
        return {"shown": ImageOps.exif_transpose(picture).size, "orientation": picture.getexif().get(0x0112)}


def downloaded(resize_mode):
    output = Path(resize_mode)
    download(
        "urls.txt", output_folder=str(output), output_format="files", resize_mode=resize_mode, image_size=80,
        processes_count=1, thread_count=1,
    )
    (sample,) = output.rglob("*.jpg")
    described = json.loads(sample.with_suffix(".json").read_text())
    return of(sample), json.loads(described["exif"]).get("Image Orientation")


if __name__ == "__main__":
    orientation = Image.Exif()
    orientation[0x0112] = 6
    Image.new("RGB", (80, 40), "teal").save("site/phone.jpg", exif=orientation)
    Path("urls.txt").write_text("http://127.0.0.1:5078/phone.jpg\n")
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 5078)) == 0:
                break
        time.sleep(0.1)
    before = of("site/phone.jpg")
    after = {mode: downloaded(mode) for mode in ("no", "keep_ratio_largest")}
    print("img2dataset", version("img2dataset"), "· before:", before)
    for mode, (picture, text) in after.items():
        print(f"resize_mode={mode}: {picture}, exif in the JSON file: {text}")
    lying = {"shown": (80, 40), "orientation": None}
    as_stated = before["shown"] == (40, 80) and all(picture == lying for picture, _ in after.values())
    sys.exit(0 if as_stated else 1)
PYTHON
NO_ALBUMENTATIONS_UPDATE=1 "$folder/venv/bin/python" run.py 2>>"$folder/log" | grep -v "^Starting\|^Sharding\|^File\|^Downloading\|^worker\|^total"
