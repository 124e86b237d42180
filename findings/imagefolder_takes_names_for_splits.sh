#!/usr/bin/env bash
# Hugging Face's datasets 5.2.0: `load_dataset("imagefolder")` looks for the names of splits in the names of
# files. One photograph called `portrait_test.jpg`, `family-train.jpg` or `dev_team.jpg` in a folder, and the
# data set consists of such photographs only: of eight pictures three are given, in the splits test, train and
# validation, and five are left out without a word. Without these three names all of the others are given.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys
from pathlib import Path

import datasets
from PIL import Image

ORDINARY = [f"IMG_000{number}.jpg" for number in range(5)]
NAMED = ["portrait_test.jpg", "family-train.jpg", "dev_team.jpg"]


def given(folder, names):
    Path(folder).mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(Path(folder, name))
    splits = datasets.load_dataset("imagefolder", data_dir=folder)
    undecoded = {split: rows.cast_column("image", datasets.Image(decode=False)) for split, rows in splits.items()}
    return {split: sorted(Path(row["image"]["path"]).name for row in rows) for split, rows in undecoded.items()}


without, all_of_them = given("without", ORDINARY), given("all", ORDINARY + NAMED)
print("datasets", datasets.__version__)
print(f"{len(ORDINARY)} pictures:", without)
print(f"{len(ORDINARY + NAMED)} pictures:", all_of_them)
only_named = {"train": ["family-train.jpg"], "validation": ["dev_team.jpg"], "test": ["portrait_test.jpg"]}
sys.exit(0 if without == {"train": ORDINARY} and all_of_them == only_named else 1)
PYTHON
