#!/usr/bin/env bash
# Ray Data 2.60.0's `read_images` gives, for GIFs and PNGs with a palette, the numbers of the palette as if
# they were grey values: a picture of a dark left half and a bright right half comes out as a uint8 array
# (height, width) of the places that these colours have in the file. Nothing tells it from a grey
# photograph. With `mode="RGB"` the colours are right.
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

DARK, BRIGHT = (40, 30, 20), (220, 210, 200)
Path("pictures").mkdir()
indexed = Image.new("P", (60, 40))
indexed.putpalette([*BRIGHT, *DARK])
indexed.paste(1, (0, 0, 30, 40))
for name in ("a.gif", "b.png"):
    indexed.save(f"pictures/{name}")
indexed.convert("L").save("pictures/c.png")

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False


def halves(**options):
    rows = ray.data.read_images("pictures", include_paths=True, **options).take_all()
    return {
        Path(row["path"]).name: (row["image"].shape, row["image"][20, 10].tolist(), row["image"][20, 50].tolist())
        for row in rows
    }


default, colours = halves(), halves(mode="RGB")
print("ray", ray.__version__, "· shape, a pixel of the dark half and one of the bright half")
print("by default:", default)
print("with mode='RGB':", colours)
numbers = default["a.gif"] == default["b.png"] == ((40, 60), 1, 0)
right = colours["a.gif"] == colours["b.png"] == ((40, 60, 3), list(DARK), list(BRIGHT))
sys.exit(0 if numbers and right and default["c.png"][1] < default["c.png"][2] else 1)
PYTHON
