"""Foreign ONNX classifiers become a bundle that answers as they do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from jobs import import_weights, train
from lib import Labeller
from lib.common.errors import UserError
from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import read_bundle
from lib.models.onnx_predictor import OnnxPredictor
from lib.scoring.labelling import Labelling
from lib.scoring.placement import Cluster, Placement
from lib.scoring.stages.labelled_faces import ReadLabelledFaces
from tests.made_faces import make_faces
from tests.made_onnx import (
    AGE_PIXELS,
    AGE_WEIGHTS,
    BANDS,
    GENDER_WEIGHTS,
    SIZE,
    make_networks,
    save_network,
)


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    return make_networks(tmp_path)


def run(folder: Path, described: dict[str, Any], output: str = "bundle") -> Path:
    (folder / "model.json").write_text(json.dumps(described))
    status = import_weights.main(
        ["--onnx", str(folder / "model.json"), "--output", str(folder / output)]
    )
    assert status == 0
    return folder / output


def test_the_bundle_answers_as_the_networks_do(tmp_path: Path, described: dict[str, Any]) -> None:
    bundle = read_bundle(run(tmp_path, described))
    assert bundle.tasks == ("age", "gender")
    found = OnnxPredictor(bundle, bundle.tasks, threads=1)(crops := squares())
    mean = crops.astype(np.float64).mean(axis=(1, 2))
    logits = (mean[:, ::-1] - AGE_PIXELS["mean"]) / AGE_PIXELS["std"] @ AGE_WEIGHTS
    bands = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for band, probability in zip(BANDS, bands.T, strict=True):
        first, last = map(int, band.split("-"))
        of_band = found["age"][:, first : last + 1]
        np.testing.assert_allclose(of_band.sum(axis=1), probability, atol=1e-5)
        assert np.ptp(of_band, axis=1).max() < 1e-6
    female = 1 / (1 + np.exp(-(mean / 255 - 0.5) / 0.5 @ GENDER_WEIGHTS[:, 0]))
    np.testing.assert_allclose(found["gender"][:, 0], female, atol=1e-3)
    np.testing.assert_allclose(found["gender"].sum(axis=1), 1, atol=1e-6)


def squares() -> NDArray[np.uint8]:
    """Faces of one colour each, which no resizing changes."""
    colours = np.random.default_rng(0).integers(0, 256, (20, 1, 1, 3), np.uint8)
    return np.tile(colours, (1, SIZE, SIZE, 1))


def test_faces_are_labelled_with_it(tmp_path: Path, described: dict[str, Any]) -> None:
    folder = run(tmp_path, described)
    (face,) = Labeller(folder, detector="none").label(squares()[0])
    assert face.age is not None
    assert 0 <= face.age <= 100
    assert face.gender in ("female", "male")
    with pytest.raises(UserError, match="'foreign' is an ONNX graph, which is computed in float32"):
        Labeller(folder, precision="bfloat16")


def test_no_gpu_is_asked_for(tmp_path: Path, described: dict[str, Any]) -> None:
    bundle = read_bundle(run(tmp_path, described))
    labelling = Labelling(ReadLabelledFaces(), DetectorSpec("none"), Limits(), bundle, False)
    (pool,) = labelling.pools(Placement(), Cluster(8, 2, cpus_by_gpu=4))
    assert (pool.gpus, pool.stages) == (0, ("faces", "age", "gender"))


def test_it_cannot_be_a_teacher(tmp_path: Path, described: dict[str, Any]) -> None:
    faces = make_faces(tmp_path / "faces", 100, 27)
    teacher = run(tmp_path, described)
    command = ["--data", faces, "--output", tmp_path / "run", "--teachers", teacher]
    with pytest.raises(UserError, match="is an ONNX graph, which training cannot compute"):
        train.main([str(part) for part in command])


def test_one_task_is_enough(tmp_path: Path, described: dict[str, Any]) -> None:
    del described["networks"]["gender"]
    (face,) = Labeller(run(tmp_path, described), detector="none").label(squares()[0])
    assert face.gender is None
    assert face.age is not None


def other_classes(described: dict[str, Any], folder: Path) -> None:
    described["networks"]["age"]["classes"] = BANDS[1:]


def a_year_too_far(described: dict[str, Any], folder: Path) -> None:
    described["networks"]["age"]["classes"] = [*BANDS[1:], "60-101"]


def another_gender(described: dict[str, Any], folder: Path) -> None:
    described["networks"]["gender"]["classes"] = ["Woman"]


def logits(described: dict[str, Any], folder: Path) -> None:
    described["networks"]["gender"]["softmax"] = False


def a_file_elsewhere(described: dict[str, Any], folder: Path) -> None:
    described["networks"]["age"]["file"] = "../age.onnx"


def an_unknown_key(described: dict[str, Any], folder: Path) -> None:
    described["networks"]["age"]["scale"] = 2


def no_crop(described: dict[str, Any], folder: Path) -> None:
    del described["crop"]


def an_unknown_task(described: dict[str, Any], folder: Path) -> None:
    described["networks"]["mood"] = described["networks"].pop("age")


def no_network(described: dict[str, Any], folder: Path) -> None:
    (folder / "age.onnx").write_bytes(b"no network")


def no_file(described: dict[str, Any], folder: Path) -> None:
    (folder / "age.onnx").unlink()


def grey(described: dict[str, Any], folder: Path) -> None:
    save_network(folder / "age.onnx", ["n", 1, SIZE, SIZE], AGE_WEIGHTS)


def foreign_operators(described: dict[str, Any], folder: Path) -> None:
    save_network(
        folder / "age.onnx", ["n", 3, SIZE, SIZE], AGE_WEIGHTS, last="Own", domain="org.own"
    )


def weights_elsewhere(described: dict[str, Any], folder: Path) -> None:
    model = onnx.load(folder / "age.onnx")
    onnx.save(
        model,
        folder / "age.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (other_classes, "has classes that do not fit: 8 outputs, and 7 classes"),
        (a_year_too_far, "'60-101' is no age of 0 to 100"),
        (another_gender, "'Woman' is none of female, male"),
        (logits, 'for the gender are no probabilities; if they are logits, set "softmax": true'),
        (a_file_elsewhere, "must be a name beside it, not '../age.onnx'"),
        (an_unknown_key, "age has 'scale', which nothing here reads"),
        (no_crop, "lacks 'crop'"),
        (an_unknown_task, "'mood' is none of age, gender"),
        (no_network, "is no ONNX network"),
        (no_file, "cannot read"),
        (grey, "takes (n, 1, 32, 32), not squares of three channels"),
        (foreign_operators, "has operators of 'org.own', which are not ONNX's"),
        (weights_elsewhere, "has weights in other files; save it as one file"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    change: Callable[[dict[str, Any], Path], None],
    complaint: str,
    tmp_path: Path,
    described: dict[str, Any],
) -> None:
    change(described, tmp_path)
    with pytest.raises(UserError) as refusal:
        run(tmp_path, described)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "bundle").exists()
