"""Training as users run it: processes of its own, on a real cluster, workers that get killed."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.train import main
from lib.common.errors import UserError
from lib.models.bundle import read_bundle
from lib.output.run_lock import RunLock
from lib.storage.folder import folder
from lib.training.checkpoint import read_checkpoint
from tests.bundles import make_plain_bundle
from tests.made_faces import make_faces
from tests.ray_head import PROJECT, Job, RayHead, ray_head, run_job, wait_until
from tests.ray_head import command as command_of
from tests.s3_server import S3Server

TRAIN = "jobs.train"
BATCH, STEPS, EPOCHS = 64, 4, 6


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A remainder that makes no step, and a validation that two workers cannot share evenly.
    return make_data(tmp_path_factory.mktemp("data"), train=BATCH * STEPS + 3, val=27)


def make_data(folder: Path, train: int, val: int) -> Path:
    """Faces, and beside them a teacher."""
    make_plain_bundle(folder / "teacher")
    return make_faces(folder / "faces", train, val)


def options(faces: Path | str, output: Path | str, workers: int) -> list[object]:
    return [
        *(TRAIN, "--data", faces, "--output", output, "--workers", workers, "--cpus", 1),
        *("--batch-size", BATCH // workers, "--epochs", EPOCHS, "--size", 32, "--plain"),
        *(
            "--dropout",
            0,
            "--learning-rate",
            0.0002,
            "--ema-momentum",
            0.9,
            "--checkpoint-steps",
            3,
        ),
        *("--pictures-after", 2, "--teachers", str(faces).removesuffix("faces") + "teacher"),
    ]


def train(*command: object) -> int:
    """Run the command of a job in this process, which is enough where no worker is needed."""
    return main([str(argument) for argument in command[1:]])


@pytest.fixture(scope="module")
def undisturbed(head: RayHead, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one worker, left alone."""
    output = tmp_path_factory.mktemp("one") / "run"
    status, text = run_job(head.environment, output.with_suffix(".log"), *options(faces, output, 1))
    assert status == 0, text
    assert f"epoch {EPOCHS}/{EPOCHS} · loss" in text
    return output


def history(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def stop_after_the_last_epoch(job: Job, output: Path) -> None:
    """Spare the time that the bundle takes."""
    wait_until(lambda: len(history(output)) == EPOCHS, 300)
    job.process.send_signal(signal.SIGINT)
    assert job.finish(60) == 130, job.output


def column(run: Path, name: str) -> list[float]:
    return [epoch[name] for epoch in history(run)]


def test_the_bundle_is_complete(undisturbed: Path) -> None:
    bundle = read_bundle(undisturbed / "bundle")
    training = bundle.card.training
    assert training is not None
    assert [teacher.name for teacher in training.teachers] == ["tiny"]
    assert training.faces == {"train": BATCH * STEPS + 3, "val": 27, "test": 20}
    assert bundle.card.metrics is not None
    assert bundle.card.metrics["test"]["age"]["count"] == 20
    assert bundle.card.validation is not None
    assert bundle.card.validation["val_mae"] == min(column(undisturbed, "val_mae"))
    assert bundle.card.calibration["age_interval_scale"] != 1
    assert column(undisturbed, "step") == [STEPS * n for n in range(1, EPOCHS + 1)]
    assert set(column(undisturbed, "val_faces")) == {27}
    assert list((undisturbed / "tensorboard").iterdir())
    assert len(list((undisturbed / "checkpoints").glob("checkpoint_2*"))) == 2  # --keep
    assert {file.name for file in (undisturbed / "plots").iterdir()} == {
        f"class_separation-{epoch:03}.{ending}"
        for epoch in (2, EPOCHS)
        for ending in ("png", "svg")
    }


def test_two_workers_one_of_them_killed_learn_the_same(
    faces: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The same global batches: the same losses; the lost worker is replaced by itself.

    Each has a logical GPU, which the job finds by itself.
    """
    output = tmp_path / "run"
    command = [*options(faces, output, 2), "--precision", "float32"]
    with (
        ray_head(cpus=4, options=["--num-gpus=2"]) as head,
        Job(head.environment, tmp_path / "log", *command) as job,
    ):
        wait_until(lambda: head.processes("ray::RayTrainWorker"), 150)
        victim = head.processes("ray::RayTrainWorker")[0]
        wait_until(lambda: history(output), 150)
        assert victim.cwd() == "/"  # that of all runs, for the cache of compiled kernels
        victim.send_signal(signal.SIGKILL)
        assert len(history(output)) < EPOCHS - 1
        stop_after_the_last_epoch(job, output)
        assert "2 workers on GPUs; 32 faces a step on each, in float32" in job.output
        assert "was given a GPU, and TensorFlow finds none" in job.output
        assert "first step: " in job.output
    assert column(output, "step") == column(undisturbed, "step")
    np.testing.assert_allclose(column(output, "loss"), column(undisturbed, "loss"), rtol=0.01)
    np.testing.assert_allclose(column(output, "val_mae"), column(undisturbed, "val_mae"), rtol=0.05)
    assert set(column(output, "val_faces")) == {27}
    assert max(column(output, "workers_apart")) < 1e-6


def test_submitted_to_a_bucket_killed_and_submitted_again(
    head: RayHead, s3: S3Server, faces: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The driver is killed: the same command goes on, and ends where it would have ended."""
    bucket = s3.bucket("training")
    shutil.copytree(faces.parent, bucket / "prepared")
    output = bucket / "run"
    command = [
        *options("s3://training/prepared/faces", "s3://training/run", 1),
        *("--s3.endpoint", s3.endpoint),
    ]
    runtime_env = yaml.safe_load((PROJECT / "cluster" / "runtime_env.yaml").read_text())
    (tmp_path / "runtime_env.yaml").write_text(yaml.safe_dump(runtime_env))
    submit = [
        *("ray", "job", "submit", "--address", head.dashboard, "--working-dir", "."),
        *("--runtime-env", str(tmp_path / "runtime_env.yaml"), "--", "python", "-m"),
        *map(str, command),
    ]
    environment = {k: v for k, v in head.environment.items() if k != "RAY_ADDRESS"}
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(submit, cwd=PROJECT, env=environment, stdout=log, stderr=log)
        wait_until(lambda: len(history(output)) >= 2 or first.poll() is not None, 150)
        drivers = [p for p in head.processes() if f"-m {TRAIN} " in command_of(p)]
        assert drivers
        for process in drivers:
            process.kill()
        assert first.wait(60) != 0
    done = len(history(output))
    assert 2 <= done < EPOCHS, (tmp_path / "first.log").read_text()
    wait_until(lambda: not head.processes("ray::RayTrainWorker"), 60)
    second = subprocess.run(
        submit, cwd=PROJECT, env=environment, timeout=250, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"epoch {EPOCHS}/{EPOCHS} · loss" in second.stdout
    assert "epoch 1/" not in second.stdout
    assert column(output, "step") == column(undisturbed, "step")
    np.testing.assert_allclose(column(output, "loss"), column(undisturbed, "loss"), rtol=1e-3)
    last = max(output.glob("checkpoints/checkpoint_2*"))
    arrays, position = read_checkpoint(last)
    assert position.epoch == EPOCHS
    assert all(np.isfinite(a).all() for group in arrays.values() for a in group)
    bundle = read_bundle(folder("s3://training/run/bundle", s3.options))
    assert bundle.card.metrics is not None
    assert bundle.card.metrics["test"]["age"]["count"] == 20
    assert bundle.card.training is not None
    assert bundle.card.training.source == "unknown; not from jobs.prepare"
    assert list((output / "tensorboard").iterdir())
    assert not (output / "unfinished").exists()


def test_what_is_done_is_not_done_again(
    faces: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert train(*options(faces, undisturbed, 1)) == 0
    assert "is trained already; nothing to do" in caplog.text


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--batch-size", "5000"], "fewer than one step takes: 5000"),
        (["--ema-momentum", "1"], "--ema-momentum must be at least 0 and below 1, not 1.0"),
        (["--backbone", "magic"], "--backbone cannot be 'magic'"),
        (["--weights", "/no/such.h5"], "--weights '/no/such.h5' is not a file"),
        (["--tasks", "age", "age"], "--tasks must be age, gender or both, not age age"),
        (["--workers", "0"], "--workers must be at least 1, not 0"),
        (["--workers", "2", "--min-workers", "3"], "--min-workers must be in 1..2"),
        (["--workers", "4", "--min-workers", "3", "--batch-size", "4"], "shared evenly by 3"),
        (["--data", "/no/such/folder"], "/no/such/folder/split=train"),
        (["--progressive-epochs", "2"], "--progressive-epochs needs --progressive-size"),
        (
            ["--progressive-epochs", "36", "--progressive-size", "32"],
            "leaves none of the 36 --epochs",
        ),
        (["--output", "ftp://host/run"], "ftp:// is not supported"),
        (["--teachers", "/no/such/bundle"], "no model at '/no/such/bundle'"),
        (["--distillation", "1.5"], "--distillation must be in 0..1, not 1.5"),
        (["--weights", "s3://bucket/trunk.h5"], "--weights takes no URI; give a local path"),
        (
            ["--progressive-size", "64", "--backbone", "vgg-face"],
            "vgg-face takes crops of one size only",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    more: list[str], complaint: str, faces: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refusal:
        train(TRAIN, "--data", faces, "--output", tmp_path / "run", *more)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_refusal_is_one_line_before_ray_is_imported(
    head: RayHead, faces: Path, tmp_path: Path
) -> None:
    command = [TRAIN, "--data", faces, "--output", tmp_path / "run", "--batch-size", 5000]
    environment = {**head.environment, "PYTHONPROFILEIMPORTTIME": "1"}
    status, text = run_job(environment, tmp_path / "log", *command)
    lines = [line for line in text.splitlines() if not line.startswith("import time:")]
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    imported = {line.rpartition("|")[2].strip() for line in text.splitlines()}
    assert "lib.training.recipe" in imported
    assert not imported & {"ray", "tensorflow"}


def test_a_teacher_of_less_than_is_trained_is_refused(faces: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(faces.parent / "teacher", tmp_path / "teacher")
    card = json.loads((teacher / "card.json").read_text())
    del card["networks"]["gender"]
    (teacher / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError) as refusal:
        train(TRAIN, "--data", faces, "--output", tmp_path / "run", "--teachers", teacher)
    assert str(refusal.value) == (
        f"--teachers: '{teacher}' does not tell gender; leave it out, or limit --tasks"
    )


def test_workers_that_do_not_fit_are_refused(head: RayHead, faces: Path, tmp_path: Path) -> None:
    status, text = run_job(
        head.environment, tmp_path / "log",
        *options(faces, tmp_path / "run", 16),
    )  # fmt: skip
    assert status == 2
    assert "16 workers of 1 CPUs do not fit: the machines have 3.9 CPUs free" in text


def test_two_runs_at_once_are_one(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with RunLock(folder(output)), pytest.raises(UserError, match=r"another run \(process"):
        train(*options(faces, output, 1))


def test_a_bad_picture_ends_the_run_with_its_name(head: RayHead, tmp_path: Path) -> None:
    """No other try would help."""
    faces = make_data(tmp_path, train=BATCH, val=9)
    file = faces / "split=train" / "part-0.parquet"
    rows = pq.read_table(file)
    pictures = [*rows["image"].to_pylist()[:-1], b"no picture"]
    pq.write_table(rows.set_column(0, "image", [pictures]), file)
    command = [*options(faces, tmp_path / "run", 1), "--max-failures", 1]
    status, text = run_job(head.environment, tmp_path / "log", *command)
    assert status == 2
    assert text.splitlines()[-1].startswith(
        f"error: the picture of made:{BATCH - 1} in the split train"
    )
