"""The examples run as they stand, on small data."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lib.common.demo import EXPECTED, make_demo
from tests.made_faces import make_faces
from tests.ray_head import PROJECT, RayHead, run_job


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    make_demo(str(folder))
    return folder


def example(name: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *map(str, arguments)],
        cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pictures(pictures: Path) -> None:
    lines = example("label_pictures", *(pictures / name for name in EXPECTED)).splitlines()
    assert len(lines) == len(EXPECTED) + 1  # two faces in one of them
    for name, status in EXPECTED.items():
        of_picture = [line for line in lines if line.startswith(f"{pictures / name}: ")]
        assert len(of_picture) == (2 if name == "two_faces.jpg" else 1)
        assert all(("years" in line) == (status == "ok") for line in of_picture)


def test_a_ray_dataset(pictures: Path, head: RayHead, tmp_path: Path) -> None:
    """Of every file, also of those that Ray's own readers pass over."""
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "_edited").mkdir()
    portrait = next(name for name, status in EXPECTED.items() if status == "ok")
    for camera in ("_DSC0001.JPG", "_edited/DSC_0002.JPG"):
        shutil.copy(folder / portrait, folder / camera)
    example("label_ray_dataset", folder, tmp_path / "out", environment=head.environment)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    expected = EXPECTED | {"_DSC0001.JPG": "ok", "DSC_0002.JPG": "ok"}
    assert {Path(row["path"]).name: row["status"] for row in rows} == expected


def test_a_query(pictures: Path, alone: dict[str, str], tmp_path: Path) -> None:
    status, text = run_job(
        alone, tmp_path / "log", "jobs.score", "--images", pictures,
        "--output", tmp_path / "labels",
    )  # fmt: skip
    assert status == 0, text
    title, *rows = example("query_labels", tmp_path / "labels").splitlines()
    assert title.split() == ["gender", "from_age", "faces", "years_of_interval"]
    faces = sum(int(row.split()[2]) for row in rows)
    assert faces == list(EXPECTED.values()).count("ok") + 1


def test_training(tmp_path: Path, head: RayHead) -> None:
    faces = make_faces(tmp_path / "faces", 40, 20)
    text = example("train_model", faces, tmp_path / "run", environment=head.environment)
    assert f"trained: {tmp_path / 'run' / 'bundle'}" in text
    assert (tmp_path / "run" / "bundle" / "card.json").exists()
