#!/usr/bin/env bash
# Ray Data 2.60.0 leaves out files and folders whose names begin with an underscore, without a word, when
# it lists a folder: `read_images` and `read_binary_files` give 1 of 5 photographs. Cameras of Nikon and
# Canon name each photograph in Adobe RGB so (`_DSC0001.JPG`, `_MG_0001.JPG`). A path that names the file
# itself is read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" pillow==13.0.0
cd "$folder"
RAY_TMPDIR="$folder/ray" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import ray
from PIL import Image

names = ["DSC_0001.JPG", "_DSC0002.JPG", "_MG_0003.JPG", "_holiday/DSC_0004.JPG", "_edited/DSC_0005.JPG"]
for name in names:
    path = Path("photos", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), "teal").save(path, "JPEG")
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False


def seen(dataset):
    return sorted(Path(row["path"]).relative_to("photos").as_posix() for row in dataset.take_all())


pictures = seen(ray.data.read_images("photos", include_paths=True))
files = seen(ray.data.read_binary_files("photos", include_paths=True))
named = seen(ray.data.read_images("photos/_DSC0002.JPG", include_paths=True))
print("ray", ray.__version__, "· in the folder:", sorted(names))
print("read_images gives", pictures, "· read_binary_files gives", files, "· of a file that is named:", named)
sys.exit(0 if pictures == files == ["DSC_0001.JPG"] and named == ["_DSC0002.JPG"] else 1)
PYTHON
