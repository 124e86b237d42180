#!/usr/bin/env bash
# Ray Data 2.60.0's `read_webdataset` decodes `.jpg` and `.png` and leaves `.jpeg`, `.JPG` and `.webp` as
# bytes: one archive gives arrays in one column and encoded files in others. What follows the first dot of
# a name is the column, so `holiday.2019.jpg` and `holiday.2020.jpg`, two photographs, are one row.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0" pillow==13.0.0
cd "$folder"
RAY_TMPDIR="$folder/ray" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import io
import sys
import tarfile

import ray
from PIL import Image

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False


def rows(*names):
    with tarfile.open("photos.tar", "w") as archive:
        for name in names:
            picture = io.BytesIO()
            kind = "WEBP" if name.endswith("webp") else "PNG" if name.endswith("png") else "JPEG"
            Image.new("RGB", (60, 40), "teal").save(picture, kind)
            member = tarfile.TarInfo(name)
            member.size = picture.tell()
            picture.seek(0)
            archive.addfile(member, picture)
    return [
        {column: type(value).__name__ for column, value in row.items() if not column.startswith("__")}
        for row in ray.data.read_webdataset("photos.tar").take_all()
    ]


print("ray", ray.__version__)
kinds = {}
for name in ("a.jpg", "a.png", "a.jpeg", "a.JPG", "a.webp"):
    (row,) = rows(name)
    kinds.update(row)
print("columns of one file each:", kinds)
dotted = rows("holiday.2019.jpg", "holiday.2020.jpg")
print("two photographs, holiday.2019.jpg and holiday.2020.jpg:", len(dotted), "row:", dotted)
as_stated = kinds == {"jpg": "ndarray", "png": "ndarray", "jpeg": "bytes", "JPG": "bytes", "webp": "bytes"}
sys.exit(0 if as_stated and [sorted(row) for row in dotted] == [["2019.jpg", "2020.jpg"]] else 1)
PYTHON
