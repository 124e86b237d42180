"""What the README says: its commands run, on small data, and what it names is there.

Training is the exception: its options are checked here, and tests/jobs/test_train.py runs it.
"""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lib.common.demo import EXPECTED, make_demo
from tests.made_imdb import ROUND, make_imdb, with_comment
from tests.made_onnx import make_described
from tests.ray_head import PROJECT, RayHead
from tests.s3_server import S3Server
from tests.stand_in import REAL
from tests.vgg_face_files import write_published

PAGES = ("README.md", "docs/sources.md", "docs/training.md")
"""Pages whose commands run, in this order."""
README = (PROJECT / "README.md").read_text("utf-8")
PROGRAMS = ("python", "make", "ray")
CHIPS = 60


def blocks() -> list[str]:
    """The blocks of commands; other blocks show a folder or Python."""
    text = "".join((PROJECT / page).read_text("utf-8") for page in PAGES)
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins of the programs."""
    folder = tmp_path_factory.mktemp("programs")
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.stand_in {name} "$@"\n')
        program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README has in /data."""
    folder = tmp_path_factory.mktemp("data")
    make_demo(str(folder / "photographs"))
    portrait = (folder / "photographs" / "portrait.jpg").read_bytes()
    (folder / "faces").mkdir()
    (folder / "faces" / "face.jpg").write_bytes(portrait)
    chips = folder / "chips"
    chips.mkdir()
    for number in range(CHIPS):
        name = f"{number + 20}_{number % 2}_0_{number:017}.jpg.chip.jpg"
        (chips / name).write_bytes(with_comment(portrait, str(number)))
    (folder / "utkface").mkdir()
    pack(chips, folder / "utkface" / "a.tar")
    make_imdb(folder, [portrait], rounds=1)
    for task, classes in (("age_model", 101), ("gender_model", 2), ("vgg_face", 2622)):
        write_published(folder / f"{task}_weights.h5", None, classes)
    make_described(folder / "other")
    (folder / "people.csv").write_text("url,person_id\nfaces/face.jpg,7\nfaces/gone.jpg,8\n")
    return folder


@pytest.fixture(scope="module")
def buckets(s3: S3Server, data: Path) -> dict[str, str]:
    """What the README has in buckets; gives the environment that leads there."""
    photos = s3.bucket("photos")
    (photos / "2019").mkdir()
    (photos / "2019" / "a.jpg").write_bytes((data / "faces" / "face.jpg").read_bytes())
    (photos / "shards").mkdir()
    pack(data / "photographs", photos / "shards" / "0.tar")
    s3.bucket("results")
    return {"AWS_ENDPOINT_URL": s3.endpoint, "AWS_REGION": "us-east-1"}


def pack(folder: Path, tar: Path) -> None:
    with tarfile.open(tar, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)


def here(text: str, data: Path, head: RayHead) -> str:
    """The same commands in the test's data, on the test's cluster and without an environment."""
    text = text.replace(". .venv/bin/activate", ":").replace(".venv/bin/python", "python")
    text = text.replace("/data/", f"{data}/").replace("out/demo", f"{data}/labels")
    text = re.sub(r"(?<= )(?=\w+_weights\.h5|people\.csv)", f"{data}/", text)
    text = text.replace("RAY_AUTH_TOKEN=", "NEW_TOKEN=")
    return text.replace("http://127.0.0.1:8265", head.dashboard)


@pytest.mark.timeout(1200)
def test_every_block_of_commands_works(
    head: RayHead, data: Path, programs: Path, buckets: dict[str, str]
) -> None:
    commands = blocks()
    assert len(commands) >= 5
    # Queries come behind what makes the labels, wherever the README has them.
    commands.sort(key=lambda block: "read_parquet" in block or "query_labels" in block)
    # Whoever submits names the dashboard; all else runs on the reader's machine, without a cluster.
    environment = {
        **{name: value for name, value in head.environment.items() if name != "RAY_ADDRESS"},
        **buckets,
        REAL: head.environment["PATH"],
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + here("\n".join(commands), data, head)],
        cwd=PROJECT, env=environment, timeout=1150,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for output, images in (
        ("labels", len(EXPECTED)),
        ("face-labels", 1),
        ("labels-of-cluster", len(EXPECTED)),
        ("labels-by-run", len(EXPECTED)),
        ("labels-by-other", len(EXPECTED)),
        ("labels-of-people", 2),
    ):
        assert len(pq.read_table(data / output / "labels")) == images
    assert f"{len(EXPECTED) + 1} labelled" in done.stdout  # of the buckets
    statuses = pq.read_table(data / "labels" / "labels")["status"].value_counts().to_pylist()
    assert str(statuses[0]["counts"]) in done.stdout
    people = pq.read_table(data / "labels-of-people" / "labels").to_pylist()
    assert {row["person_id"]: row["status"] for row in people} == {"7": "ok", "8": "not_found"}
    assert done.stdout.count("checked: jobs.train") == 4
    assert "-m jobs.score --images" in done.stdout  # the recipe of `make score`
    assert (data / "report.html").stat().st_size > 100_000
    assert len(list((data / "report-pictures").iterdir())) == 7
    assert f"{len(EXPECTED)} of {len(EXPECTED)} images (100%)" in done.stdout
    assert f"{CHIPS} rows" in done.stdout
    assert f"{ROUND} rows" in done.stdout
    assert (data / "evaluation" / "metrics.json").exists()
    assert (data / "vgg" / "card.json").exists()
    assert len(pq.read_table(data / "labels-of-dataset")) == 1
    assert re.search(r"face\.jpg: \d+ years", done.stdout)
    assert "years_of_interval" in done.stdout


@pytest.mark.parametrize("command", ["python -m jobs.train --dat x", "python setup.py", "ray up"])
def test_a_wrong_command_would_be_noticed(command: str, programs: Path) -> None:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, REAL: os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-c", command], cwd=PROJECT, env=environment, capture_output=True, check=False
    )
    assert done.returncode != 0


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_what_it_names_is_there() -> None:
    names = set(re.findall(r"`((?:benchmarks|jobs|models|cluster|lib|tests)/[\w/.-]+)`", README))
    names |= set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
    names |= set(re.findall(r"`([A-Z]+\.(?:md|cff)|LICENSE)`", README))
    assert len(names) >= 5
    assert [name for name in sorted(names) if not (PROJECT / name).exists()] == []
