"""Published weights in, the same numbers out: files of full size, with random weights."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs import import_weights
from lib.common.errors import UserError
from lib.models.backbones.vgg_face import vgg_face
from lib.models.bundle import read_bundle
from lib.models.network_file import load_network
from lib.models.tensorflow_predictor import TensorflowPredictor
from lib.tasks.expectation import expected_age
from lib.training.networks import build_networks
from tests.bundles import make_plain_bundle
from tests.ray_head import PROJECT
from tests.vgg_face_files import reference, write_published, write_random

GIB = 2**30
FACES = 12
SCORED = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from lib.models.bundle import read_bundle
from lib.scoring.stages.face_arrays import face_column, faces_of
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.stage import Stopwatch
crops = np.load(sys.argv[2])
stage = Predict(read_bundle(Path(sys.argv[1])), ("age", "gender"), 2)
stage.setup(Stopwatch())
table = stage(pa.table({"crops": face_column(crops, [len(crops)])}))
classes = {"age_probabilities": 101, "gender_probabilities": 2}
np.savez(sys.argv[3], **{name: faces_of(table, name, (n,)) for name, n in classes.items()})
"""
MEASURED = """
import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
with open(os.environ["TOLD"], "w") as told:
    told.write(f"{usage.ru_maxrss} {usage.ru_utime + usage.ru_stime}")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def faces() -> NDArray[np.uint8]:
    """Coloured clouds, (n, 224, 224, 3), RGB: as different as faces are."""
    rng = np.random.default_rng(5)
    coarse = rng.normal(0, 1, (FACES, 8, 8, 3)).repeat(28, axis=1).repeat(28, axis=2)
    fine = rng.normal(0, 0.3, (FACES, 56, 56, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(128 + 50 * (coarse + fine), 0, 255).astype(np.uint8)


def deepface_inputs(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (crops[..., ::-1] / np.float32(255)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Holds files of gigabytes, hence it is emptied at once."""
    folder = tmp_path_factory.mktemp("vgg-face")
    yield folder
    for file in folder.rglob("*"):
        if file.is_file():
            file.unlink()


@pytest.fixture(scope="module")
def published(folder: Path) -> dict[str, Path]:
    """An age and a gender model on the same convolutions."""
    return write_random(folder, deepface_inputs(faces()[:4]), [("age", 101), ("gender", 2)])


@dataclass(frozen=True)
class Run:
    """What a process did: its status, what it wrote, its memory at most in bytes, seconds on the CPUs."""

    status: int
    output: str
    peak_memory: int
    cpu_seconds: float


def run(*arguments: object) -> Run:
    """Run Python to its end.

    A process inherits the peak of the one that starts it, and pytest's is gigabytes: a small one between
    them does the measuring.
    """
    command = [sys.executable, "-c", MEASURED, sys.executable, *map(str, arguments)]
    with NamedTemporaryFile("r", encoding="utf-8") as told:
        done = subprocess.run(
            command, cwd=PROJECT, env={**os.environ, "TOLD": told.name}, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        kilobytes, seconds = map(float, told.read().split())
    return Run(done.returncode, done.stdout, int(kilobytes) * 1024, seconds)


@pytest.fixture(scope="module")
def imported(folder: Path, published: dict[str, Path]) -> tuple[Path, Run]:
    bundle = folder / "bundle"
    files = [v for task, file in published.items() for v in (f"--{task}", file)]
    return bundle, run("-m", "jobs.import_weights", *files, "--output", bundle)


def test_the_backbone_is_stored_once(
    imported: tuple[Path, Run], published: dict[str, Path]
) -> None:
    folder, done = imported
    bundle = read_bundle(folder)
    assert done.status == 0, done.output
    assert "equal: stored and computed once" in done.output
    assert bundle.backbone is not None
    megabytes = {file.name: round(file.stat().st_size / 1e6) for file in folder.glob("*.keras")}
    assert megabytes == {"trunk.keras": 59, "age.keras": 480, "gender.keras": 478}
    assert bundle.card.preprocessing == "deepface"
    assert bundle.card.sources is not None
    assert bundle.card.sources["age"].file == published["age"].name
    assert bundle.card.class_labels["gender"] == ("female", "male")  # Woman, Man
    assert done.peak_memory < 4 * GIB


def test_the_same_numbers_come_out_in_little_memory(
    imported: tuple[Path, Run], published: dict[str, Path], tmp_path: Path
) -> None:
    crops = faces()
    np.save(tmp_path / "crops.npy", crops)
    told = run("-c", SCORED, imported[0], tmp_path / "crops.npy", tmp_path / "said.npz")
    assert told.status == 0, told.output
    with np.load(tmp_path / "said.npz") as said:
        age, gender = said["age_probabilities"], said["gender_probabilities"]
    some = deepface_inputs(crops[::4])
    expected = expected_age(reference(published["age"], some)).age
    assert np.ptp(expected) > 2, "the faces must differ for this to mean anything"
    np.testing.assert_allclose(expected_age(age[::4]).age, expected, atol=0.01)
    np.testing.assert_allclose(gender[::4], reference(published["gender"], some), atol=1e-4)
    assert told.peak_memory < 2.5 * GIB


def test_two_pools_say_the_same_as_one(imported: tuple[Path, Run]) -> None:
    """As the layouts separate and fused do it: a backbone for each model, or one for both."""
    bundle, crops = read_bundle(imported[0]), faces()[:9]
    together = TensorflowPredictor(bundle, ("age", "gender"))(crops)
    ages = TensorflowPredictor(bundle, ("age",))(crops)["age"]
    genders = TensorflowPredictor(bundle, ("gender",))(crops)["gender"]
    np.testing.assert_allclose(expected_age(ages).age, expected_age(together["age"]).age, atol=1e-3)
    np.testing.assert_allclose(genders, together["gender"], atol=1e-5)


def test_bfloat16_says_nearly_the_same(imported: tuple[Path, Run]) -> None:
    bundle, crops = read_bundle(imported[0]), faces()[:5]
    exact = TensorflowPredictor(bundle, ("age", "gender"))(crops)
    found = TensorflowPredictor(bundle, ("age", "gender"), "bfloat16")(crops)
    ages, expected = expected_age(found["age"]).age, expected_age(exact["age"]).age
    np.testing.assert_allclose(ages, expected, atol=2)
    assert (ages != expected).all()
    np.testing.assert_allclose(found["gender"], exact["gender"], atol=0.1)
    # The softmax is computed in float32.
    np.testing.assert_allclose(found["age"].sum(axis=1), 1, atol=1e-5)


def test_convolutions_that_differ_make_two_networks(folder: Path) -> None:
    """One bit of one bias makes the difference; all other weights here are zero but the last."""
    age = write_published(folder / "age.h5", None, 101)
    gender = write_published(folder / "gender.h5", None, 2)
    last = np.linspace(0, 4, 101)
    with h5py.File(age, "r+") as h5, h5py.File(gender, "r+") as other:
        h5["predictions/predictions/bias:0"][:] = last
        other["conv2d_13/conv2d_13/bias:0"][511] = np.nextafter(np.float32(0), np.float32(1))
    output = folder / "apart"
    done = run(
        *("-m", "jobs.import_weights", "--age", age, "--gender", gender, "--output", output),
        *("--preprocessing", "training", "--name", "two"),
    )
    assert done.status == 0, done.output
    assert done.peak_memory < 4 * GIB
    bundle = read_bundle(output)
    assert (bundle.name, bundle.backbone) == ("two", None)
    assert bundle.card.preprocessing == "training"
    assert (bundle.crop.margin, bundle.pixels.channels) == (0.4, "rgb")
    assert load_network(bundle.networks["age"]).count_params() == 134_674_341
    probabilities = TensorflowPredictor(bundle, ("age",))(faces()[:1])["age"]
    np.testing.assert_allclose(probabilities[0], np.exp(last) / np.exp(last).sum(), rtol=1e-4)


def test_the_identities_model_is_a_start_for_training(folder: Path) -> None:
    (file,) = write_random(folder, deepface_inputs(faces()[:2]), [("vgg_face", 2622)]).values()
    assert import_weights.main(["--backbone", str(file), "--output", str(folder / "start")]) == 0
    networks = build_networks("vgg-face", 224, weights=folder / "start" / "backbone.keras")
    inputs = deepface_inputs(faces()[:1])
    features = np.asarray(networks.backbone(inputs, training=False))
    with h5py.File(file) as h5:
        kernel, bias = (h5[f"predictions/predictions/{n}:0"][()] for n in ("kernel", "bias"))
    logits = (features @ kernel.reshape(4096, 2622) + bias).astype(np.float64)
    odds = np.exp(logits - logits.max())
    np.testing.assert_allclose(odds / odds.sum(), reference(file, inputs), atol=1e-5)
    assert vgg_face(2622).count_params() == 145_002_878


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--age", "a.h5"], "--age and --gender"),
        (["--age", "a.h5", "--gender", "g.h5", "--backbone", "t.h5"], "not both"),
        (["--age", "a.h5", "--gender", "g.h5"], "cannot read 'a.h5'"),
        (["--backbone", "t.h5"], "cannot read 't.h5'"),
        (["--backbone", "t.h5", "--preprocessing", "caffe"], "deepface, training"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        import_weights.main([*options, "--output", str(tmp_path / "bundle")])
    assert not (tmp_path / "bundle").exists()


def test_files_given_the_wrong_way_round_are_told_apart_in_two_seconds(tmp_path: Path) -> None:
    age = write_published(tmp_path / "age.h5", None, 101)
    gender = write_published(tmp_path / "gender.h5", None, 2)
    options = ("--age", gender, "--gender", age, "--output", tmp_path / "bundle")
    done = run("-m", "jobs.import_weights", *options)
    assert done.status == 2
    assert done.output.startswith(
        f"error: '{gender}': layer 16 ('predictions') has (1, 1, 4096, 2)"
    )
    assert done.output.count("\n") == 1
    assert done.cpu_seconds < 2  # the clock runs on where others work, too


def test_a_bundle_is_not_written_over(tmp_path: Path) -> None:
    make_plain_bundle(tmp_path)
    with pytest.raises(UserError, match="there already"):
        import_weights.main(["--age", "a", "--gender", "g", "--output", str(tmp_path)])
