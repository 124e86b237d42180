#!/usr/bin/env bash
# The same JPEG of a phone, 80 x 40 pixels that viewers show 40 x 80: Hugging Face's datasets 5.2.0 gives it
# upright, Ray Data 2.60.0 (`read_images`) and Daft 0.7.26 (`decode_image`) lying on its side, without a word
# and without its EXIF, so that nobody behind them can turn it. A detector of faces sees other pictures after a
# move from one to another.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" daft==0.7.26 datasets==5.2.0 pillow==13.0.0
cd "$folder"
RAY_TMPDIR="$folder/ray" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import daft
import datasets
import ray
from daft.functions import decode_image
from PIL import Image

orientation = Image.Exif()
orientation[0x0112] = 6
Path("photos").mkdir()
Image.new("RGB", (80, 40), "teal").save("photos/phone.jpg", exif=orientation)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
of_ray = ray.data.read_images("photos").take_all()[0]
table = daft.from_pydict({"encoded": [Path("photos/phone.jpg").read_bytes()]})
of_daft = table.select(decode_image(table["encoded"]).alias("image")).to_pydict()["image"][0]
given = datasets.Dataset.from_dict({"image": ["photos/phone.jpg"]}).cast_column("image", datasets.Image())
seen = {
    f"datasets {datasets.__version__}": given[0]["image"].size,
    f"ray {ray.__version__}": of_ray["image"].shape[1::-1],
    f"daft {daft.__version__}": of_daft.shape[1::-1],
}
print("width and height:", seen, "· columns of Ray Data:", sorted(of_ray))
upright, lying = (40, 80), (80, 40)
sys.exit(0 if list(seen.values()) == [upright, lying, lying] and list(of_ray) == ["image"] else 1)
PYTHON
