"""The inference graph of a bundle: as the Keras networks answer, checked wherever it is loaded."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from lib.common.errors import UserError
from lib.models import inference_graph, onnx_predictor
from lib.models.backbones.compact import compact
from lib.models.bundle import DEFAULT_MODEL, Bundle, read_bundle, sha256_of, write_card
from lib.models.check_crops import check_crops
from lib.models.inference_graph import with_inference_graph
from lib.models.onnx_predictor import OnnxPredictor
from lib.models.predictor import load_predictor
from lib.models.tensorflow_predictor import TensorflowPredictor
from tests.bundles import make_bundle, make_plain_bundle

TASKS = ("age", "gender")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"), backbone=compact)


@pytest.fixture
def copy(made: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(made.folder, tmp_path / "copy")
    return read_bundle(tmp_path / "copy")


def crops_of(bundle: Bundle, count: int) -> np.ndarray:
    side = bundle.crop.size
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_both_engines_answer_the_same(made: Bundle, count: int) -> None:
    crops = crops_of(made, count)
    exact = TensorflowPredictor(made, TASKS)(crops)
    found = OnnxPredictor(made, TASKS, threads=1)(crops)
    assert list(found) == list(exact)
    for task in TASKS:
        assert found[task].dtype == np.float32
        np.testing.assert_allclose(found[task], exact[task], atol=1e-5)


def test_the_embedded_model_answers_the_same_in_both_engines() -> None:
    bundle = read_bundle(DEFAULT_MODEL)
    crops = crops_of(bundle, 20)
    exact = TensorflowPredictor(bundle, TASKS)(crops)
    found = OnnxPredictor(bundle, TASKS, threads=1)(crops)
    for task in TASKS:
        np.testing.assert_allclose(found[task], exact[task], atol=1e-6)


def test_one_task_by_itself(made: Bundle) -> None:
    assert list(OnnxPredictor(made, ("gender",), threads=1)(crops_of(made, 3))) == ["gender"]


def test_cpus_take_onnx_runtime_and_all_else_tensorflow(made: Bundle) -> None:
    plain = make_plain_bundle(made.folder.parent / "plain")
    assert isinstance(load_predictor(made, TASKS, 1), OnnxPredictor)
    assert isinstance(load_predictor(made, TASKS, 1, on_gpu=True), TensorflowPredictor)
    assert isinstance(load_predictor(made, TASKS, 1, "bfloat16"), TensorflowPredictor)
    assert isinstance(load_predictor(plain, TASKS, 1), TensorflowPredictor)


def test_a_large_model_gets_no_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_plain_bundle(tmp_path)
    monkeypatch.setattr(inference_graph, "MOST_WEIGHT_BYTES", bundle.weight_bytes - 1)
    assert with_inference_graph(bundle) == bundle


def test_a_changed_file_is_refused(copy: Bundle) -> None:
    assert copy.inference is not None
    copy.inference.write_bytes(copy.inference.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match=r"inference\.onnx\.gz' is damaged or was changed"):
        read_bundle(copy.folder)


def test_a_graph_of_other_weights_is_refused(copy: Bundle) -> None:
    """The digest fits, and the answers do not."""
    assert copy.inference is not None
    model = onnx.load_from_string(gzip.decompress(copy.inference.read_bytes()))
    head = next(t for t in model.graph.initializer if t.dims and t.dims[-1] == 101)
    values = onnx.numpy_helper.to_array(head) * np.float32(1.1)
    head.CopyFrom(onnx.numpy_helper.from_array(values, head.name))
    other = with_graph(copy, gzip.compress(model.SerializeToString()))
    with pytest.raises(UserError, match=r"answers otherwise than .*: age .* for .* writes it anew"):
        OnnxPredictor(other, TASKS, threads=1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no graph", "Not a gzipped file"),
        (gzip.compress(b"no graph"), "INVALID_PROTOBUF"),
        (gzip.compress(bytes(9_999))[:-9], "Compressed file ended"),
        (gzip.compress(bytes((1 << 20) + 1)), "more than 1 MB"),
    ],
    # The bytes hold the time: the workers of a run would not agree on what they are called.
    ids=["not compressed", "no graph", "cut off", "too large"],
)
def test_what_is_no_graph_is_refused_in_one_line(
    copy: Bundle, content: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_predictor, "MOST_BYTES", 1 << 20)
    other = with_graph(copy, content)
    with pytest.raises(
        UserError, match=rf"cannot use the inference graph .*inference\.onnx\.gz.*{why}"
    ) as error:
        OnnxPredictor(other, TASKS, threads=1)
    assert "\n" not in str(error.value)


def with_graph(bundle: Bundle, content: bytes) -> Bundle:
    """The same with another file, whose digest fits."""
    graph = bundle.card.inference
    assert graph is not None
    assert bundle.inference is not None
    bundle.inference.write_bytes(content)
    graph = replace(graph, sha256=sha256_of(bundle.inference))
    return write_card(bundle.folder, replace(bundle.card, inference=graph))


def test_graphs_of_earlier_versions_are_read(copy: Bundle) -> None:
    """They are not compressed."""
    assert copy.inference is not None
    graph = copy.card.inference
    assert graph is not None
    file = copy.folder / "inference.onnx"
    file.write_bytes(gzip.decompress(copy.inference.read_bytes()))
    graph = replace(graph, file=file.name, sha256=sha256_of(file))
    earlier = write_card(copy.folder, replace(copy.card, inference=graph))
    crops = crops_of(copy, 3)
    found = OnnxPredictor(earlier, ("age",), threads=1)(crops)
    np.testing.assert_array_equal(found["age"], OnnxPredictor(copy, ("age",), 1)(crops)["age"])
    assert with_inference_graph(earlier).inference == copy.inference
    assert not file.exists()


def test_the_embedded_model_is_small() -> None:
    files = [file.stat().st_size for file in DEFAULT_MODEL.iterdir()]
    assert sum(files) < 12e6


def test_check_crops_never_change() -> None:
    crops = check_crops(96)
    assert crops.shape == (8, 96, 96, 3)
    assert crops[:, ::16, ::16].reshape(-1)[:8].tolist() == [172, 47, 117, 192, 67, 251, 195, 103]
