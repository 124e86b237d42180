#!/usr/bin/env bash
# Ray Data 2.60.0: a column that holds only None in a block, as one of error messages mostly does, is written to
# Parquet with the type null. With an error in a later file PyArrow 26.0.1 and pandas 3.1.1 read the folder as the
# first file says, and fail: "Unsupported cast from string to null". A pipeline works until the first picture
# fails. Columns that a function gives as Arrow arrays of a type keep it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
cd "$folder"
RAY_TMPDIR="$folder/ray" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False


def labels(batch):
    errors = [None if number < 3 else "cannot be decoded" for number in batch["id"]]
    return {"id": batch["id"], "error": np.array(errors, object)}


def typed(table):
    return pa.table({"id": table["id"], "error": pa.array(labels(table.to_pydict())["error"], pa.string())})


def outcome(read, folder):
    try:
        return str(len(read(folder))) + " rows"
    except pa.ArrowException as error:
        return str(error)


pictures = ray.data.range(4, override_num_blocks=4)
pictures.map_batches(labels, batch_size=1).write_parquet("objects")
pictures.map_batches(typed, batch_size=1, batch_format="pyarrow").write_parquet("typed")
print("ray", ray.__version__, "· pyarrow", pa.__version__, "· pandas", pd.__version__)
seen = {}
for folder in ("objects", "typed"):
    types = sorted(str(pq.read_schema(file).field("error").type) for file in Path(folder).iterdir())
    seen[folder] = types, outcome(pq.read_table, folder), outcome(pd.read_parquet, folder)
    print(f"{folder}: types {types} · pyarrow: {seen[folder][1]} · pandas: {seen[folder][2]}")
fails = "Unsupported cast from string to null using function cast_null"
as_stated = seen == {
    "objects": (["null"] * 3 + ["string"], fails, fails), "typed": (["string"] * 4, "4 rows", "4 rows")
}
sys.exit(0 if as_stated else 1)
PYTHON
