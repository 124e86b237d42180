"""A `.keras` file → its network, in little more memory than the weights take.

Keras' own loading draws random weights first, holds the file in memory, and the largest array three
times: 1.3 GB more than the 480 MB of one head of VGG-Face. Workers that load two heads lack that memory.
Here the large arrays are what a layer starts with, and nothing is copied.
"""

import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from lib.common.errors import UserError
from lib.common.gpus import memory_is_full
from lib.models.bundle import Precision

WEIGHTS = "model.weights.h5"
MOST_BYTES = 4 << 30
"""Of unpacked weights; VGG-Face has 0.6 GB."""
_ALIGNMENT = 64


def load_network(file: Path, precision: Precision = "float32") -> keras.Model:
    """Load a network, without its optimizer; nothing from the file is run.

    Args:
        file: of the network.
        precision: what its layers compute in, but for a softmax at the end: small probabilities decide
            the expectation. Weights stay float32.

    Raises:
        UserError: the file holds no network that Keras can make without running code from it.
    """
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
            if archive.getinfo(WEIGHTS).file_size > MOST_BYTES:
                raise UserError(
                    f"cannot load the network {str(file)!r}: more than {MOST_BYTES} bytes"
                )
            config = json.loads(archive.read("config.json")) | {"compile_config": None}
            if precision != "float32":
                config = _computing_in(precision, config)
            return _built(config, Path(archive.extract(WEIGHTS, folder)))
    except UserError:
        raise
    except Exception as error:
        if memory_is_full(error):
            raise UserError(
                f"there is no memory left for the network {str(file)!r}: stop what else uses it, "
                "or hide a GPU whose memory is full with CUDA_VISIBLE_DEVICES=-1"
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot load the network {str(file)!r}: {reason}") from None


def _built(config: dict[str, Any], weights: Path) -> keras.Model:
    with h5py.File(weights) as h5:
        groups = _groups(h5)
        network = keras.saving.deserialize_keras_object(
            _starting_with(groups, config), safe_mode=True
        )
        layers = [layer for layer in network.layers if layer.weights]
        if all(layer.name in groups for layer in layers):
            for layer in layers:
                _fill(layer, groups[layer.name])
            return network
    network.load_weights(weights)  # networks inside networks
    return network


def _computing_in(precision: Precision, config: Any) -> Any:
    """The configuration with another precision for all layers but those that end in a softmax."""
    if isinstance(config, list):
        return [_computing_in(precision, value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": f"mixed_{precision}"}}
    of_layer = config.get("config")
    if config.get("class_name") == "Softmax" or (
        isinstance(of_layer, dict) and of_layer.get("activation") == "softmax"
    ):
        return config
    return {key: _computing_in(precision, value) for key, value in config.items()}


def _groups(h5: h5py.File) -> dict[str, h5py.Group]:
    """Where the weights of each layer are, by the layer's name."""
    groups = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if path.endswith("/vars") and "name" in item.attrs:
            groups[item.attrs["name"]] = item

    h5.visititems(visit)
    return groups


def _starting_with(groups: Mapping[str, h5py.Group], config: Any) -> Any:
    """The configuration with kernels of `Dense` layers from the file, and zeros for all other weights."""
    if isinstance(config, list):
        return [_starting_with(groups, value) for value in config]
    if not isinstance(config, dict):
        return config
    zeros = {"module": "keras.initializers", "class_name": "Zeros", "config": {}}
    changed: dict[str, Any] = {
        key: zeros if key.endswith("_initializer") else _starting_with(groups, value)
        for key, value in config.items()
    }
    if changed.get("class_name") == "Dense" and changed["config"]["name"] in groups:
        kernel = groups[changed["config"]["name"]]["0"]
        changed["config"]["kernel_initializer"] = _initializer(kernel)
    return changed


def _initializer(values: h5py.Dataset) -> Callable[..., tf.Tensor]:
    def read(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
        if tuple(shape) != values.shape:
            raise ValueError(f"{values.name} is {values.shape}, not {tuple(shape)}")
        return _tensor(values)

    return read


def _fill(layer: keras.Layer, group: h5py.Group) -> None:
    if isinstance(layer, keras.layers.Dense):  # its kernel is there already
        if layer.use_bias:
            layer.bias.assign(group["1"][()])
    else:
        layer.load_own_variables({key: group[key][()] for key in group})


def _tensor(values: h5py.Dataset) -> tf.Tensor:
    """An array as a tensor that the variable made of it keeps, without a copy.

    TensorFlow takes memory over that starts at a multiple of 64 bytes.
    """
    size = values.size * values.dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    array = memory[start : start + size].view(values.dtype).reshape(values.shape)
    values.read_direct(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
