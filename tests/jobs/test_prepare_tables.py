"""jobs.prepare on tables of a user's own: what is refused before an image is read, and paths."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import prepare
from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.storage.folder import folder
from lib.training.faces import read_labels
from tests.nasty import jpeg
from tests.ray_head import run_job


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "faces"
    rng = np.random.default_rng(0)
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (10, 10, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        (root / name).write_bytes(jpeg(pixels))
    return root


def arguments(images: Path, table: str, *more: str) -> list[str]:
    file = images.parent / "table.csv"
    file.write_text(table)
    output = images.parent / "out"
    return [
        *("--source", "table", "--table", str(file), "--images", str(images)),
        *("--output", str(output), *more),
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("path,age,gender\na/1.jpg,20-29,f\n", "'20-29' in row 1 is not a number of years"),
        ("path,age,gender\na/1.jpg,20,femme\n", "'femme' in row 1 is not female, male"),
        (
            "path,age,gender\na/1.jpg,200,f\n",
            "no row of the metadata can be kept: 1 impossible_age",
        ),
        ("path,age,gender\n", "no row of the metadata can be kept: it is empty"),
        ("path,age,gender\nx.jpg,20,f\n", "the metadata names none of the images"),
    ],
)
def test_what_ends_in_nothing_is_refused_at_once(
    images: Path, table: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "ingest_shards", lambda *_: pytest.fail("images were read"))
    with pytest.raises(UserError, match=says):
        prepare.main(arguments(images, table))


@pytest.mark.parametrize(
    "named",
    [
        lambda root, name: name,
        lambda root, name: f"./{name}",
        lambda root, name: str(root / name),
        lambda root, name: f"faces/{name}",
        lambda root, name: f"somewhere/else/{name}",
    ],
)
def test_paths_as_tables_have_them(
    alone: dict[str, str], images: Path, named: Callable[[Path, str], str]
) -> None:
    names = ("a/1.jpg", "a/2.jpg", "b/3.jpg")
    rows = [f"{named(images, name)},{age},f" for name, age in zip(names, (20, 30, 40), strict=True)]
    table = "\n".join(["path,age,gender", *rows, "none.jpg,50,m", ""])
    status, text = run_job(alone, images.parent / "log", "jobs.prepare", *arguments(images, table))
    assert status == 0, text
    faces = images.parent / "out" / "faces"
    read = [pq.ParquetFile(file).read(["age"]) for file in faces.rglob("*.parquet")]
    assert sorted(pa.concat_tables(read)["age"].to_pylist()) == [20, 30, 40]


def test_a_path_that_fits_two_images_is_refused(images: Path) -> None:
    (images.parent / "more" / "a").mkdir(parents=True)
    (images.parent / "more" / "a" / "1.jpg").write_bytes((images / "b/3.jpg").read_bytes())
    command = arguments(images, "path,age,gender\na/1.jpg,20,f\n")
    command += ["--images", str(images), str(images.parent / "more")]
    with pytest.raises(UserError, match=r"the path 'a/1.jpg' of the metadata fits .*faces.*more"):
        prepare.main(command)


def test_a_data_set_without_genders(alone: dict[str, str], images: Path) -> None:
    table = "path,age\na/1.jpg,20\na/2.jpg,30\nb/3.jpg,40\n"
    command = arguments(images, table, "--columns.gender", "None", "--shares", "1", "0", "0")
    status, text = run_job(alone, images.parent / "log", "jobs.prepare", *command)
    assert status == 0, text
    faces = LabelledFaces(folder(images.parent / "out" / "faces"), "train")
    assert sorted(read_labels(faces, ["age"]).classes["age"]) == [20, 30, 40]
    with pytest.raises(UserError, match="has a gender: use --tasks age"):
        read_labels(faces, ["age", "gender"])


def test_nothing_kept_is_a_failure(
    alone: dict[str, str], images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the same command is given again."""
    command = arguments(images, "path,age,gender\na/1.jpg,20,f\n", "--min-size", "1000")
    for _ in range(2):
        status, text = run_job(alone, images.parent / "log", "jobs.prepare", *command)
        assert status == prepare.FAILED, text
        assert "no face is kept" in text
