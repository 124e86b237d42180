#!/usr/bin/env bash
# Ray Data 2.60.0 writes a column of images to Parquet with a tensor type of its own
# (`ray.data.arrow_tensor_v2`), not with Arrow's `arrow.fixed_shape_tensor`: PyArrow 26.0.1 and pandas 3.1.1
# read each picture as one flat list, and its height and width stand only in the metadata of the field. For
# pictures of several sizes it is a struct of the flat list and the shape.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" pyarrow==26.0.1 pandas==3.1.1 pillow==13.0.0
cd "$folder"
RAY_TMPDIR="$folder/ray" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
from pathlib import Path

import ray
from PIL import Image

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
for kind, widths in {"one_size": (60, 60), "two_sizes": (60, 30)}.items():
    Path("pictures", kind).mkdir(parents=True)
    for number, width in enumerate(widths):
        Image.new("RGB", (width, 40), "teal").save(f"pictures/{kind}/{number}.png")
    ray.data.read_images(f"pictures/{kind}").repartition(1).write_parquet(f"written/{kind}")
PYTHON
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

(one,) = Path("written/one_size").glob("*.parquet")
(two,) = Path("written/two_sizes").glob("*.parquet")
field = pq.read_schema(one).field("image")
picture = pd.read_parquet(one)["image"][0]
other = pq.read_schema(two).field("image")
print("pyarrow", pa.__version__, "· pandas", pd.__version__, "· pictures of 40 x 60 x 3 =", 40 * 60 * 3)
print("one size:", field.type, field.metadata, "· in pandas:", picture.shape)
print("two sizes:", other.type)
as_stated = (
    picture.shape == (7200,)
    and field.metadata[b"ARROW:extension:name"] == b"ray.data.arrow_tensor_v2"
    and field.metadata[b"ARROW:extension:metadata"] == b"[40, 60, 3]"
    and pa.types.is_struct(other.type)
)
sys.exit(0 if as_stated else 1)
PYTHON
