#!/usr/bin/env bash
# Ray Data 2.60.0: where one value is missing in a batch, `map_batches` gives a function whole numbers of 64 bits, as
# perceptual hashes are, as floating point numbers, which have 53 bits, and keeps that: a function that only returns
# its batch changes all hashes of the batch, so that pictures are taken for duplicates that are none. `map`, and the
# batch formats pandas and pyarrow, keep them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" imagehash==4.3.2 pillow==13.0.0 matplotlib==3.11.2
cd "$folder"
RAY_TMPDIR="$folder/ray" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import imagehash
import matplotlib
import ray
from PIL import Image

photograph = Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg"))
hashes = [int(str(imagehash.phash(photograph.rotate(angle))), 16) >> 1 for angle in range(0, 50, 10)]
rows = [{"number": number, "phash": value} for number, value in enumerate([*hashes, None])]

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
pictures = ray.data.from_items(rows, override_num_blocks=1)
ways = {
    "map_batches": pictures.map_batches(lambda batch: batch),
    "map_batches, pandas": pictures.map_batches(lambda batch: batch, batch_format="pandas"),
    "map_batches, pyarrow": pictures.map_batches(lambda batch: batch, batch_format="pyarrow"),
    "map": pictures.map(lambda row: row),
}
print("ray", ray.__version__, "· imagehash", version("imagehash"), "· hashes of five pictures, and one missing")
changed = {}
for name, kept in ways.items():
    given = {row["number"]: row["phash"] for row in kept.take_all()}
    changed[name] = sum(given[number] != value for number, value in enumerate(hashes))
    print(f"{name}: {changed[name]} of 5 changed, type {kept.schema().types[1]}")
sys.exit(0 if list(changed.values()) == [5, 0, 0, 0] else 1)
PYTHON
