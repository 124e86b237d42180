#!/usr/bin/env bash
# Hugging Face's datasets 5.2.0: `to_parquet` of a data set of image files writes their paths and no picture; on
# another machine, or once the files are gone, it cannot be read. `save_to_disk` of the same data set holds them.
# Who wants them in Parquet maps `datasets.table.embed_table_storage` over the data set first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
from datasets.table import embed_table_storage
from PIL import Image

Path("pictures").mkdir()
for number in range(3):
    noise = np.random.default_rng(number).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(f"pictures/{number}.jpg")
size = sum(file.stat().st_size for file in Path("pictures").iterdir())

pictures = datasets.load_dataset("imagefolder", data_dir="pictures", split="train")
pictures.save_to_disk("disk")
pictures.to_parquet("paths.parquet")
embedded = pictures.with_format("arrow").map(embed_table_storage, batched=True)
embedded.with_format(None).to_parquet("embedded.parquet")
shutil.rmtree("pictures")


def outcome(load):
    try:
        return f"{len([row['image'].load() for row in load()])} pictures"
    except FileNotFoundError as error:
        return type(error).__name__


paths = pq.read_table("paths.parquet")["image"].to_pylist()
seen = {
    "save_to_disk": outcome(lambda: datasets.load_from_disk("disk")),
    "to_parquet": outcome(lambda: datasets.Dataset.from_parquet("paths.parquet")),
    "embed_table_storage, to_parquet": outcome(lambda: datasets.Dataset.from_parquet("embedded.parquet")),
}
print("datasets", datasets.__version__, f"· 3 pictures of {size} bytes, read when the files are gone:")
print(seen)
print("bytes of files:", {name: Path(name).stat().st_size for name in ("paths.parquet", "embedded.parquet")})
missing = all(image["bytes"] is None for image in paths)
sys.exit(0 if missing and list(seen.values()) == ["3 pictures", "FileNotFoundError", "3 pictures"] else 1)
PYTHON
