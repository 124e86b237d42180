"""What is read as a published weight file, and what is refused; the files here are sparse and small."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lib.common.errors import UserError
from lib.models.backbones.vgg_face_weights import Layer, WeightFile, convolutions, equal, top
from tests.vgg_face_files import kernels, write_published

AGES = 101


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_published(tmp_path / "age_model_weights.h5", None, AGES)


def test_the_sixteen_layers_are_known_by_their_order(file: Path) -> None:
    assert [layer.kernel for layer in [*convolutions(), *top(AGES)]] == kernels(AGES)
    with h5py.File(file, "r+") as h5:
        h5["conv2d_2/conv2d_2/bias:0"][:] = np.arange(64)
        h5["predictions/predictions/bias:0"][:] = np.arange(AGES)
    weights = WeightFile(file, AGES)
    kernel, bias = weights.read([Layer("conv1_2", (3, 3, 64, 64))])
    assert kernel.shape == (3, 3, 64, 64)
    assert bias.tolist() == list(range(64))
    *_, bias = weights.read(top(AGES)[2:])
    assert bias.tolist() == list(range(AGES))


def test_a_file_with_the_model_and_half_precision_is_read(file: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.h5"
    with h5py.File(file) as h5, h5py.File(whole, "w") as other:
        h5.copy(h5, other, "model_weights")
        other.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": []}})
        path = "model_weights/conv2d_1/conv2d_1/bias:0"
        del other[path]
        other[path] = np.full(64, 0.5, np.float16)
    _, bias = WeightFile(whole, AGES).read(convolutions()[:1])
    assert bias.dtype == np.float32
    assert (bias == 0.5).all()


def test_equal_means_every_bit(file: Path, tmp_path: Path) -> None:
    other = write_published(tmp_path / "gender_model_weights.h5", None, 2)
    one, two = WeightFile(file, AGES), WeightFile(other, 2)
    layers = convolutions()
    assert equal(one, two, layers[:4])
    with h5py.File(other, "r+") as h5:
        h5["conv2d_4/conv2d_4/bias:0"][7] = np.float32(-0.0)
    assert not equal(one, two, layers[:4])
    assert equal(one, two, layers[:3])


def narrower(h5: h5py.File) -> None:
    del h5["conv2d_3/conv2d_3/kernel:0"]
    h5.create_dataset("conv2d_3/conv2d_3/kernel:0", (3, 3, 64, 100), "f4")


def no_bias(h5: h5py.File) -> None:
    h5["conv2d_14"].attrs["weight_names"] = [b"conv2d_14/kernel:0"]


def one_less(h5: h5py.File) -> None:
    h5["conv2d_5"].attrs["weight_names"] = np.array([], "S1")


def lost(h5: h5py.File) -> None:
    del h5["conv2d_9"]


def no_list(h5: h5py.File) -> None:
    del h5.attrs["layer_names"]


def lambda_layer(h5: h5py.File) -> None:
    layers = [{"class_name": "Conv2D"}, {"class_name": "Lambda", "config": {"function": "4wEA"}}]
    h5.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": layers}})


def opaque_array(h5: h5py.File) -> None:
    h5["optimizer"] = np.void(pickle.dumps([1]))


def text_array(h5: h5py.File) -> None:
    h5["code"] = "__import__('os')"


def pickled_attribute(h5: h5py.File) -> None:
    h5["conv2d_1"].attrs["config"] = np.void(pickle.dumps([1]))


def pickled_text(h5: h5py.File) -> None:
    h5.attrs["training_config"] = np.bytes_(pickle.dumps([1]).rstrip(b"\0"))


def another_file(h5: h5py.File) -> None:
    del h5["conv2d_1/conv2d_1/bias:0"]
    h5["conv2d_1/conv2d_1/bias:0"] = h5py.ExternalLink("other.h5", "/secret")


def external_data(h5: h5py.File) -> None:
    del h5["conv2d_1/conv2d_1/bias:0"]
    external = [("/etc/hostname", 0, 256)]
    h5.create_dataset("conv2d_1/conv2d_1/bias:0", (64,), "f4", external=external)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (narrower, r"layer 3 \('conv2d_3'\) has \(3, 3, 64, 100\) and \(128,\), where conv2_1 of"),
        (no_bias, r"layer 14 \('conv2d_14'\) has \(7, 7, 512, 4096\), where fc6 of"),
        (one_less, "15 layers with weights, and VGG-Face has 16"),
        (lost, "conv2d_9"),
        (no_list, "no list layer_names"),
        (lambda_layer, r"carries code \(Lambda\)"),
        (opaque_array, "may carry code"),
        (text_array, "may carry code"),
        (pickled_attribute, "may carry code"),
        (pickled_text, "holds a pickle"),
        (another_file, "link 'bias:0'"),
        (external_data, "from another file"),
    ],
)
def test_what_does_not_fit_is_named(
    file: Path, change: Callable[[h5py.File], None], says: str
) -> None:
    with h5py.File(file, "r+") as h5:
        change(h5)
    with pytest.raises(UserError, match=says) as caught:
        WeightFile(file, AGES)
    assert "age_model_weights.h5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_another_task_are_told_apart(file: Path) -> None:
    with pytest.raises(UserError, match=r"layer 16 \('predictions'\) has \(1, 1, 4096, 101\)"):
        WeightFile(file, 2)


@pytest.mark.parametrize("content", [None, b"", b"text", pickle.dumps([1]), "cut"])
def test_what_is_no_hdf5_is_refused_in_one_line(file: Path, content: bytes | str | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:5000] if content == "cut" else bytes(content))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"cannot read .*age_model_weights.h5. as HDF5") as caught:
        WeightFile(file, AGES)
    assert "\n" not in str(caught.value)
