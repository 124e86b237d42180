"""The benchmark of GPUs: its refusals, and its parts in small on a CPU."""

import re
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from benchmarks import gpu, gpu_step
from benchmarks.gpu_pictures import write_pictures
from benchmarks.gpu_runs import (
    FIRST_STEP,
    Busy,
    Run,
    compare_labels,
    decoding_rate,
    detector_rate,
    on_gpu,
    predictor_rates,
    product_tflops,
    score,
)
from lib.common.errors import UserError
from lib.models.bundle import read_bundle
from lib.training.history import step_line


def anywhere(device: str) -> None:
    assert "CPU" in device


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, photographs=60, chips=300, faces=40, given=None)
    return folder


def test_without_a_gpu_one_line_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    monkeypatch.setattr(gpu, "usable_gpus", lambda: (0, "it is a toy"))
    with pytest.raises(UserError, match=r"^no GPU can be used here \(it is a toy\): no figure"):
        gpu.main()


def test_all_parts_take_five_minutes() -> None:
    assert gpu.PARTS.keys() == gpu.LIMITS.keys() == set(gpu.Options().parts)
    assert sum(gpu.LIMITS.values()) <= 300


def test_a_part_without_a_gpu_has_no_figure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not gpu.run("device", tmp_path, 60)
    assert capfd.readouterr().out == "device: TensorFlow sees no GPU\n"


def test_a_late_part_is_stopped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not gpu.run("device", tmp_path, 0.2)
    assert capfd.readouterr().out == "device: stopped after 0 s\n"


def test_what_ran_elsewhere_gives_no_figure(model: Path) -> None:
    on_gpu("/job:localhost/replica:0/task:0/device:GPU:0")
    with pytest.raises(UserError, match="not on a GPU"):
        predictor_rates(read_bundle(model), "float32", 4, 1, on_gpu)
    with pytest.raises(UserError, match="not on a GPU"):
        detector_rate([], 1, on_gpu)
    with pytest.raises(UserError, match="not on a GPU"):
        product_tflops(8, "float32", 1, on_gpu)


def test_loops_in_small(model: Path) -> None:
    assert min(predictor_rates(read_bundle(model), "bfloat16", 4, 2, anywhere)) > 0
    assert detector_rate([np.zeros((50, 40, 3), np.uint8)], 1, anywhere) > 0
    assert product_tflops(64, "float32", 2, anywhere) > 0


def test_all_cores_decode_together(pictures: Path) -> None:
    assert decoding_rate([file.read_bytes() for file in (pictures / "few").iterdir()], 0.5) > 1


def test_a_step_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = gpu_step.Options("compact", size=32, batch_size=8, precision="float32", steps=1)
    gpu_step.measure(options, tmp_path, threads=1)
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["decoding", "built", "traced", "a"]
    assert re.fullmatch(r"a step: \d+\.\d ms, [\d,]+ faces/s", lines[-1])


def test_pictures_are_those_that_were_asked_for(pictures: Path) -> None:
    counts = {
        name: len(list((pictures / name).iterdir())) for name in ("photographs", "few", "chips")
    }
    assert counts == {"photographs": 60, "few": 5, "chips": 300}
    photograph = cv2.imread(str(pictures / "photographs" / "00059.jpg"))
    assert photograph is not None
    assert photograph.shape == (1200, 1600, 3)
    assert len(pd.read_parquet(pictures / "faces")) == 40 + 32 + 32


def test_the_job_is_watched_and_its_labels_compared(pictures: Path, tmp_path: Path) -> None:
    run = score(pictures / "chips", tmp_path, 60, ["--detector", "none"], gpu=False)
    assert 0 < run.first_seconds < 60
    assert run.samples[-1][1] == 300
    labels = pd.read_parquet(tmp_path / "labels")
    assert compare_labels(labels, labels) == (0, 0)
    other = labels.assign(age=labels["age"] + 0.5)
    other.loc[0, "face_count"] = 2
    apart, others = compare_labels(other, labels)
    assert (apart, others) == (pytest.approx(0.5, abs=1e-4), 1)
    with pytest.raises(UserError, match="other images"):
        compare_labels(labels, labels[:5])


def test_first_results_and_steady_rates() -> None:
    rows = [0, 10, 10, 100, 300, 500, 700, 910, 1000, 1000]
    run = Run(10.0, [(11.0 + n, done) for n, done in enumerate(rows)], [])
    assert run.first_seconds == 2
    assert run.steady == (16, 18)
    assert run.rate == 205  # from 500 to 910 of 1000: the ramps count for nothing
    with pytest.raises(UserError, match="nothing was done"):
        _ = Run(0.0, [(1.0, 0)], []).first_seconds
    with pytest.raises(UserError, match="came at once"):
        _ = Run(0.0, [(1.0, 5)], []).rate


def test_an_idle_gpu_gives_no_figure() -> None:
    busy = Busy()
    began = time.monotonic()
    busy.add(iter(["50\n", "[N/A]\n", "100\n"]))
    assert busy.share(began, time.monotonic()) == 0.75
    busy.samples = [(1.0, 0.0), (2.0, 0.0)]
    for end in (0.5, 3.0):
        with pytest.raises(UserError, match="the GPU did nothing"):
            busy.share(0.0, end)


def test_steps_of_a_training_are_read() -> None:
    run = Run(0.0, [], [])
    with pytest.raises(UserError, match="no time to give a rate"):
        _ = run.best_rate
    run.read_steps(["building the network\n"])
    with pytest.raises(UserError, match=r"nothing was done in time \| building the network$"):
        _ = run.first_seconds
    lines = [step_line(1, 3, step, 90, 500.0 + step, []) for step in (1, 40, 50)]
    run.read_steps([f"{FIRST_STEP}3.1 s", *lines])
    assert [step for _, step in run.samples] == [1, 40, 50]
    assert run.rates == [540, 550]
    assert run.best_rate == 550
