"""Labels of a Ray Dataset of the user's, on a real cluster."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.nasty import jpeg
from tests.ray_head import PROJECT, RayHead

PROGRAM = """
import json, sys
import numpy as np
import pyarrow as pa
import ray
import ray.data
from lib import label_dataset
from lib.common.errors import UserError

model, folder, what = sys.argv[1:]
ray.init(log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
def array(n):
    return np.random.default_rng(n).integers(0, 256, (40, 40 + n % 3, 3), np.uint8)
def paths(row):
    return {"id": row["id"], "place": f"{folder}/{row['id']:04}.jpg"}
def contents(row):
    file = f"{folder}/{row['id']:04}.jpg"
    try:
        data = open(file, "rb").read()
    except OSError:
        data = None
    # Names of the columns between the stages: they stay the user's.
    return {"number": row["id"], "data": data, "boxes": "mine", "note": row["id"] / 2}
options = {"model": model, "detector": "none"}
rows = ray.data.range(1000, override_num_blocks=8)
try:
    match what:
        case "paths":
            labels = label_dataset(rows.map(paths), "place", **options)
        case "bytes":
            labels = label_dataset(rows.map(contents), "data", **options).drop_columns(["data"])
        case "arrays":
            rows = ray.data.range(60).map(lambda row: {"id": row["id"], "array": array(row["id"])})
            labels = label_dataset(rows, "array", **options).drop_columns(["array"])
        case "tables":
            faces = [{"bytes": open(f"{folder}/0000.jpg", "rb").read(), "path": None},
                     {"bytes": None, "path": f"{folder}/0001.jpg"}]
            labels = label_dataset(ray.data.from_arrow(pa.table({"image": faces})), "image", **options)
            labels = labels.drop_columns(["image"])
        case "missing":
            label_dataset(rows, "nothing", **options)
        case "taken":
            label_dataset(rows.map(lambda row: {"id": row["id"], "age": 3}), "id", **options)
    print(json.dumps(labels.to_pandas().to_dict("records"), default=str))
except UserError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand places: every tenth one is no image, and every seventh one is empty."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(1000):
        if number % 7 == 3:
            continue
        data = jpeg(rng.integers(0, 256, (40, 40 + number % 5, 3), np.uint8))
        (folder / f"{number:04}.jpg").write_bytes(data[: 20 if number % 10 == 9 else None])
    return folder


def label(head: RayHead, model: Path, folder: Path, what: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model), str(folder), what],
        cwd=PROJECT, env=head.environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def status(number: int) -> str:
    return "not_found" if number % 7 == 3 else "decode_error" if number % 10 == 9 else "ok"


def test_a_thousand_paths_broken_ones_among_them(head: RayHead, model: Path, folder: Path) -> None:
    rows = sorted(label(head, model, folder, "paths"), key=lambda row: row["id"])  # type: ignore[arg-type,return-value]
    assert [row["id"] for row in rows] == list(range(1000))
    assert [row["status"] for row in rows] == [status(number) for number in range(1000)]
    assert list(rows[0])[:4] == ["id", "place", "status", "error"]
    known = [isinstance(row["gender"], str) for row in rows]
    assert known == [row["status"] == "ok" for row in rows]


def test_bytes_beside_columns_of_any_name(head: RayHead, model: Path, folder: Path) -> None:
    rows = {int(str(row["number"])): row for row in label(head, model, folder, "bytes")}
    assert len(rows) == 1000
    for number, row in rows.items():
        assert row["status"] == status(number)
        assert (row["boxes"], row["note"]) == ("mine", number / 2)
        assert row["width"] == (40 + number % 5 if row["status"] == "ok" else row["width"])


def test_arrays_and_the_images_of_hugging_face(head: RayHead, model: Path, folder: Path) -> None:
    arrays = label(head, model, folder, "arrays")
    assert [row["status"] for row in arrays] == ["ok"] * 60
    assert sorted((row["id"], row["width"]) for row in arrays) == [
        (number, 40 + number % 3) for number in range(60)
    ]
    tables = label(head, model, folder, "tables")
    assert sorted(str(row["width"]) for row in tables) == ["40", "41"]


@pytest.mark.parametrize(
    ("what", "message"),
    [("missing", "has no column 'nothing'; it has id"), ("taken", "has a column 'age'")],
)
def test_columns_that_do_not_fit(
    head: RayHead, model: Path, folder: Path, what: str, message: str
) -> None:
    assert message in str(label(head, model, folder, what))
