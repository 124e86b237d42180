"""The main job as users run it: a process of its own, on a real cluster, on real files."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from threading import Event, Thread
from typing import Self

import duckdb
import matplotlib
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.score import main
from lib.common.demo import EXPECTED, make_demo
from lib.common.errors import UserError
from lib.models.bundle import read_bundle
from lib.output.counts import LabelCounts
from lib.output.run_record import RunRecord, claim
from lib.scoring.schema import label_schema
from lib.storage.uris import local_path
from tests.bundles import make_bundle
from tests.nasty import make_nasty
from tests.ray_head import PROJECT, Job, RayHead, ray_head, run_job, wait_until

SCORE = "jobs.score"
PORTRAITS = 400
GIB = 1 << 30
LOOKS_MALE = {
    *(f"img{n}" for n in (14, 15, 16, 19, 20, 21, 24, 25, 29, 30, 31, 34, 35, 36, 39, 40, 41)),
    *("img57", "img61", "img62", "img67", "selfie-many-people"),
}
"""Of the shared photographs those whose main face looks male to the author; the others look female."""


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with a face, dear enough to find that nobody is done with it soon; no two alike."""
    folder = tmp_path_factory.mktemp("portraits")
    with Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")) as image:
        for number in range(PORTRAITS):
            left, top = number % 20, number // 20
            image.crop((left, top, left + 480, top + 560)).save(folder / f"{number:05}.jpg")
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    head: RayHead, model: Path, portraits: Path, tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    status, text = run_job(
        head.environment, output.with_suffix(".log"), *fused_options(portraits, output, model)
    )
    assert status == 0, text
    return labels(output)


def fused_options(images: Path, output: Path, model: Path) -> list[object]:
    return [
        *(SCORE, "--images", images, "--output", output, "--model", model),
        *("--faces.actors", 2, "--faces.cpus", 1),
    ]


def labels(output: Path) -> pd.DataFrame:
    return pd.read_parquet(output / "labels").sort_values("id").reset_index(drop=True)


def files(output: Path) -> int:
    return len(list((output / "labels").glob("*.parquet")))


def rows(output: Path) -> int:
    """Rows of the files that are whole."""
    return LabelCounts(output / "labels").update().total()


def assert_same_labels(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Every image once, and labels as if nothing had happened."""
    assert found["id"].tolist() == expected["id"].tolist() == list(range(len(expected)))
    for column in ("uri", "status", "gender", "face_count", "width"):
        assert found[column].tolist() == expected[column].tolist()
    for column in ("age", "age_std", "age_low", "age_high", "gender_score"):
        np.testing.assert_allclose(found[column], expected[column], atol=1e-3)


def test_stopped_killed_and_started_again(
    head: RayHead, model: Path, portraits: Path, undisturbed: pd.DataFrame, tmp_path: Path
) -> None:
    """Ctrl-C, then SIGKILL, then left alone: each start goes on where the last one was."""
    output, log = tmp_path / "out", tmp_path / "log"
    options = fused_options(portraits, output, model)
    with Job(head.environment, log, *options) as job:
        wait_until(lambda: files(output) >= 3, 90)
        job.process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert job.finish(20) == 130
        assert time.monotonic() - asked < 10
        assert "the same command goes on where it was" in job.output
        assert "Traceback" not in job.output
    after_stop = files(output)
    assert rows(output) < PORTRAITS
    with Job(head.environment, log, *options) as job:
        wait_until(lambda: files(output) >= after_stop + 3, 90)
        job.process.kill()
        job.process.wait()
    wait_until(lambda: not head.workers(), 60)
    before = rows(output)
    assert before < PORTRAITS
    status, text = run_job(head.environment, log, *options)
    assert status == 0, text
    assert_same_labels(labels(output), undisturbed)
    summary = json.loads((output / "summary.json").read_text())
    assert PORTRAITS - before <= summary["images_this_time"] < PORTRAITS


@pytest.mark.parametrize(("layout", "victims"), [("fused", 1), ("separate", 3)])
def test_killed_workers_are_replaced(
    layout: str,
    victims: int,
    head: RayHead,
    model: Path,
    portraits: Path,
    undisturbed: pd.DataFrame,
    tmp_path: Path,
) -> None:
    """SIGKILL half-way for every worker: the finder of faces and both models, where separate."""
    output, log = tmp_path / "out", tmp_path / "log"
    options = [
        *(SCORE, "--images", portraits, "--output", output, "--model", model, "--layout", layout),
        *("--faces.actors", 1, "--faces.cpus", 1),
        *("--models.actors", 1, "--models.cpus", 1),
    ]
    with Job(head.environment, log, *options) as job:
        wait_until(lambda: rows(output) >= PORTRAITS / 4, 90)
        workers = head.workers()
        for process in workers:
            process.send_signal(signal.SIGKILL)
        assert len(workers) == victims
        assert rows(output) < PORTRAITS * 3 / 4
        assert job.finish() == 0, job.output
    assert_same_labels(labels(output), undisturbed)


def test_demonstration_and_nasty_files(head: RayHead, model: Path, tmp_path: Path) -> None:
    """One row for every file, with the right status, readable by everybody, in little memory."""
    make_demo(str(tmp_path / "demo"))
    nasty = make_nasty(tmp_path / "nasty")
    # What can be decoded of the nasty files shows no face.
    expected = {
        "demo": EXPECTED,
        "nasty": {name: "no_face" if s == "ok" else s for name, s in nasty.items()},
    }
    peaks = {}
    for name, statuses in expected.items():
        output = tmp_path / f"out {name} 50%"
        with MemoryWatch(head) as memory:
            status, text = run_job(
                head.environment, tmp_path / "log", SCORE, "--images", tmp_path / name,
                "--output", output, "--model", model, "--faces.actors", 1,
            )  # fmt: skip
        assert status == 0, text
        peaks[name] = memory.peak
        found = labels(output)
        names = [local_path(uri).name for uri in found["uri"]]
        assert dict(zip(names, found["status"], strict=True)) == statuses
        assert len(found) == len(statuses)
        explained = ~found["status"].isin(["ok", "no_face"])
        assert found["error"].notna().tolist() == explained.tolist()
        assert_boxes_are_inside(found)
        distinct = f"select count(distinct id) from '{output}/labels/*.parquet'"
        assert duckdb.connect().execute(distinct).fetchone() == (len(statuses),)
        part = next((output / "labels").glob("*.parquet"))
        assert pq.read_schema(part).equals(label_schema())
    assert peaks["demo"] > 0
    assert peaks["nasty"] - peaks["demo"] < 2 * GIB


def test_as_deepface_in_half_precision(alone: dict[str, str], model: Path, tmp_path: Path) -> None:
    """The same statuses as by default; of a box that reaches beyond its picture, what is inside."""
    make_demo(str(tmp_path / "demo"))
    with Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")) as image:
        image.crop((200, 0, image.width, image.height)).save(tmp_path / "demo" / "cut.png")
    status, text = run_job(
        alone, tmp_path / "log", SCORE, "--images", tmp_path / "demo",
        "--output", tmp_path / "out", "--model", model,
        "--detector", "deepface", "--precision", "bfloat16",
    )  # fmt: skip
    assert status == 0, text
    found = labels(tmp_path / "out")
    found.index = [local_path(uri).name for uri in found["uri"]]
    assert found["status"].to_dict() == {**EXPECTED, "cut.png": "ok"}
    assert found["age"].notna().tolist() == (found["status"] == "ok").tolist()
    assert found["box"]["cut.png"]["x"] == 0
    assert_boxes_are_inside(found)


@pytest.mark.data
def test_photographs(alone: dict[str, str], shared_data: Path, tmp_path: Path) -> None:
    """The embedded model on real photographs: a face in each, and whose looks nearly always right."""
    photos = shared_data / "photos"
    options = ["--images", photos, "--output", tmp_path / "out"]
    status, text = run_job(alone, tmp_path / "log", SCORE, *options)
    assert status == 0, text
    found = labels(tmp_path / "out")
    assert len(found) == 40
    assert (found["face_count"] > 0).all()
    assert_boxes_are_inside(found)
    looks_male = found["uri"].map(lambda uri: Path(uri).stem in LOOKS_MALE)
    right = (found["gender"] == "male") == looks_male
    assert right.sum() >= 38, found["uri"][~right].tolist()


def assert_boxes_are_inside(found: pd.DataFrame) -> None:
    for _, row in found[found["face_count"] > 0].iterrows():
        areas = []
        for face in row["faces"]:
            box = face["box"]
            assert 0 <= box["x"] <= box["x"] + box["width"] <= row["width"]
            assert 0 <= box["y"] <= box["y"] + box["height"] <= row["height"]
            areas.append(box["width"] * box["height"])
        assert areas == sorted(areas, reverse=True)
        assert row["box"] == row["faces"][0]["box"]


class MemoryWatch:
    """The largest sum of the workers' resident memory while a `with` block runs."""

    def __init__(self, head: RayHead) -> None:
        self._head = head

    def __enter__(self) -> Self:
        self.peak = 0
        self._stop = Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.peak = max(self.peak, sum(resident(process) for process in self._head.workers()))


def resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    """Ray can spill nothing, and all crops together are more than its store holds."""
    side, count, store = 160, 1400, 80_000_000
    assert count * side * side * 3 > 1.3 * store
    model = make_bundle(tmp_path / "model", side).folder
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (count, 3), np.uint8)
    for number, colour in enumerate(colours):
        Image.new("RGB", (64, 64), tuple(colour.tolist())).save(images / f"{number:05}.png")
    full = {"local_fs_capacity_threshold": 0.001}  # a disk that is fuller counts as full
    with ray_head(cpus=4, config=full, options=[f"--object-store-memory={store}"]) as head:
        status, text = run_job(
            head.environment, tmp_path / "log",
            *(SCORE, "--images", images, "--output", output, "--model", model),
            *("--detector", "none", "--layout", "separate", "--models.actors", 1),
        )  # fmt: skip
    assert status == 0, text
    found = labels(output)
    assert found["id"].tolist() == list(range(count))
    assert (found["status"] == "ok").all()


def test_submitted_job(head: RayHead, model: Path, portraits: Path, tmp_path: Path) -> None:
    """`ray job submit` as the README has it: progress in its log, the exit status passed on."""
    output = tmp_path / "out"
    submit = [
        *("ray", "job", "submit", "--address", head.dashboard, "--working-dir", "."),
        *("--runtime-env", "cluster/runtime_env.yaml", "--", "python", "-m"),
    ]
    environment = {k: v for k, v in head.environment.items() if k != "RAY_ADDRESS"}

    def submitted(*more: str) -> subprocess.CompletedProcess[str]:
        options = [str(option) for option in fused_options(portraits, output, model)]
        return subprocess.run(
            [*submit, *options, *more], cwd=PROJECT, env=environment, timeout=200,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    good = submitted("--limit", "200")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "200 of 200 images (100%)" in good.stdout
    assert labels(output)["id"].tolist() == list(range(200))
    bad = submitted("--limit", "0")
    assert bad.returncode != 0
    assert "error: --limit must be at least 1, not 0" in bad.stdout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--limit", "0"], "--limit must be at least 1, not 0"),
        (["--limit", "many"], "--limit"),
        (["--max-error-rate", "2"], "--max-error-rate must be in 0..1, not 2.0"),
        (["--detector", "magic"], "--detector cannot be 'magic'"),
        (["--faces.actors", "0"], "--faces.actors must be at least 1, not 0"),
        (["--speed", "high"], "unknown option --speed high"),
        (["--images", "/no/such/folder"], "/no/such/folder"),
        (["--images", "s3://"], "names no bucket"),
        (["--images", "ftp://host/photos"], "ftp:// is not supported"),
        (["--output", "http://host/labels"], "http:// is not supported"),
        (["--retry", "bad_luck"], "--retry cannot be 'bad_luck'; choose from ok, no_face"),
        (["--prune"], "--prune needs --update"),
        (["--carry", "age"], "--carry age: labels have a column of that name already"),
        (["--carry", "person"], "only tables have further columns"),
        (["--s3.profile", "nobody"], "nobody"),
        (["--s3.endpoint", "here"], "the endpoint of S3 must be a URL"),
        (["--model", "/no/such/model"], "/no/such/model"),
        (["--output", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_what_cannot_work_is_refused(
    options: list[str], complaint: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        main([*good_options(model, tmp_path), *options])
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "labels").exists()


def test_a_refusal_is_one_line_before_anything_large_is_imported(
    model: Path, tmp_path: Path
) -> None:
    command = [SCORE, *good_options(model, tmp_path), "--faces.actors", 0]
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    status, text = run_job(environment, tmp_path / "log", *command)
    lines = [line for line in text.splitlines() if not line.startswith("import time:")]
    assert status == 2
    assert lines == ["error: --faces.actors must be at least 1, not 0"]
    imported = {line.rpartition("|")[2].strip() for line in text.splitlines()}
    assert "lib.scoring.placement" in imported
    assert not imported & {"ray", "tensorflow"}


def good_options(model: Path, folder: Path) -> list[str]:
    (folder / "images").mkdir()
    (folder / "images" / "a.jpg").write_bytes(b"")
    return [
        *("--images", str(folder / "images"), "--output", str(folder / "out")),
        *("--model", str(model)),
    ]


def test_a_damaged_model_is_refused(model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(model, damaged)
    with (damaged / "age.keras").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"age\.keras.* is damaged"):
        read_bundle(damaged)


def test_another_run_is_refused(model: Path, portraits: Path, tmp_path: Path) -> None:
    """Checked before Ray starts, against the record that the first start leaves."""
    output = tmp_path / "out"
    claim(
        output,
        RunRecord("jobs.score", {"images": [str(portraits)], "limit": 7, "model": "other@1"}),
    )
    with pytest.raises(UserError, match=r"limit was 7, now None; model was 'other@1', now 'tiny@"):
        main([str(option) for option in fused_options(portraits, output, model)[1:]])


def test_too_many_errors_fail(alone: dict[str, str], model: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"text")
    options = [
        *(SCORE, "--images", tmp_path, "--output", tmp_path / "out", "--model", model),
        *("--detector", "none"),
    ]
    status, text = run_job(alone, tmp_path / "log", *options, "--max-error-rate", 0.5)
    assert status == 1
    assert "error: 100.0% of the images could not be labelled" in text
    # The labels are there all the same, and the rate is no part of what they are.
    status, text = run_job(alone, tmp_path / "log", *options)
    assert status == 0
    assert "nothing to do" in text
