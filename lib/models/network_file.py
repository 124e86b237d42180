"""A `.keras` file → its network, in little more memory than the weights take.

Keras' own loading draws random weights first, holds the file in memory, and the largest array three
times: 1.3 GB more than the 480 MB of one head of VGG-Face, which workers with two of them have not got.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from lib.errors import UserError

WEIGHTS = "model.weights.h5"
_ALIGNMENT = 64


def load_network(file: Path) -> keras.Model:
    """Load a network, without its optimizer; nothing from the file is run.

    Raises:
        UserError: the file holds no network that Keras can make without running code from it.
    """
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
            if archive.getinfo(WEIGHTS).compress_type != zipfile.ZIP_STORED:
                raise UserError(
                    f"cannot load the network {str(file)!r}: its weights are compressed"
                )
            config = _without_chance(json.loads(archive.read("config.json")))
            network = keras.saving.deserialize_keras_object(
                {**config, "compile_config": None}, safe_mode=True
            )
            _fill(network, Path(archive.extract(WEIGHTS, folder)))
            return network
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot load the network {str(file)!r}: {reason}") from None


def _without_chance(config: Any) -> Any:
    """The configuration with zeros in place of all first weights, which are replaced anyhow."""
    if isinstance(config, dict):
        zeros = {"module": "keras.initializers", "class_name": "Zeros", "config": {}}
        return {
            key: zeros if key.endswith("_initializer") else _without_chance(value)
            for key, value in config.items()
        }
    return [_without_chance(value) for value in config] if isinstance(config, list) else config


def _fill(network: keras.Model, file: Path) -> None:
    """Give all layers their weights, one layer at a time."""
    layers = [layer for layer in network.layers if layer.weights]
    with h5py.File(file) as h5:
        groups = _groups(h5)
        if all(layer.name in groups for layer in layers):
            for layer in layers:
                _fill_layer(layer, groups[layer.name])
            return
    network.load_weights(file)  # networks inside networks


def _groups(h5: h5py.File) -> dict[str, h5py.Group]:
    """Where the weights of each layer are, by the layer's name."""
    groups = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if path.endswith("/vars") and "name" in item.attrs:
            groups[item.attrs["name"]] = item

    h5.visititems(visit)
    return groups


def _fill_layer(layer: keras.Layer, group: h5py.Group) -> None:
    layer.load_own_variables({key: _tensor(group[key]) for key in group})


def _tensor(values: h5py.Dataset) -> tf.Tensor:
    """An array as a tensor, which the variable that it is assigned to keeps, without a copy.

    TensorFlow takes memory over that starts at a multiple of 64 bytes.
    """
    size = values.size * values.dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    array = memory[start : start + size].view(values.dtype).reshape(values.shape)
    if size:
        values.read_direct(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
