"""Weights of Torch's first format → Keras: names, strides and axes."""

import io
import pickle
import struct
import sys
from collections import OrderedDict
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from models.imagenet_weights import fill, read

PROTOCOL = 2


class Storage:
    """Stands for Torch's: numbers that the pickle only names."""

    def __init__(self, kind: str, key: str, values: np.ndarray) -> None:
        self.kind, self.key, self.values = kind, key, values


class Tensor:
    """As Torch pickles one."""

    def __init__(self, storage: Storage, size: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.arguments: tuple[Any, ...] = (storage, 0, size, strides, False, OrderedDict())


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Modules of Torch's names, as a pickle names them."""
    package, utils = ModuleType("torch"), ModuleType("torch._utils")

    def rebuild(*arguments: Any) -> None:
        raise AssertionError("nothing of the file is executed")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    for kind in ("FloatStorage", "LongStorage"):
        setattr(package, kind, type(kind, (), {"__module__": "torch", "__qualname__": kind}))
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return package


def write(tensors: dict[str, Tensor], torch: ModuleType) -> bytes:
    """What `torch.save` wrote before version 1.6."""
    file = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, file, PROTOCOL)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                kind = getattr(torch, value.kind)
                return ("storage", kind, value.key, "cpu", value.values.size, None)
            return None

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, Tensor):
                return sys.modules["torch._utils"]._rebuild_tensor_v2, value.arguments
            return NotImplemented

    Pickler(file, PROTOCOL).dump(OrderedDict(tensors))
    storages = sorted((t.arguments[0] for t in tensors.values()), key=lambda storage: storage.key)
    pickle.dump([storage.key for storage in storages], file, PROTOCOL)
    for storage in storages:
        file.write(struct.pack("<q", storage.values.size) + storage.values.tobytes())
    return file.getvalue()


def tensor(key: int, values: np.ndarray, kind: str = "FloatStorage") -> Tensor:
    """With the strides that an array has, which need not be those of its order."""
    strides = tuple(stride // values.itemsize for stride in values.strides)
    flat = np.lib.stride_tricks.as_strided(values, (values.size,), (values.itemsize,))
    return Tensor(Storage(kind, str(key), flat.copy()), values.shape, strides)


def test_kernels_of_any_strides_reach_their_layers(torch: ModuleType) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 4, 8)).astype(np.float32)  # as Keras has it
    depthwise = rng.normal(size=(8, 1, 3, 3)).astype(np.float32)  # as Torch has it
    norm = rng.uniform(1, 2, (4, 8)).astype(np.float32)
    parts = ("weight", "bias", "running_mean", "running_var")
    tensors = {
        "_conv_stem.weight": tensor(9, kernel.transpose(3, 2, 0, 1)),
        **{f"_bn0.{p}": tensor(4 + n, norm[n].copy()) for n, p in enumerate(parts)},
        "_bn0.num_batches_tracked": tensor(2, np.array(7, np.int64), "LongStorage"),
        "_blocks.0._depthwise_conv.weight": tensor(1, depthwise),
    }
    x = inputs = keras.Input((16, 16, 4))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False)(x))
    network = keras.Model(inputs, layers.DepthwiseConv2D(3, use_bias=False)(x))
    data = write(tensors, torch)
    fill(network, read(data))
    weights = network.get_weights()
    np.testing.assert_array_equal(weights[0], kernel)
    np.testing.assert_array_equal(np.stack(weights[1:5]), norm)
    np.testing.assert_array_equal(weights[5], depthwise.transpose(2, 3, 0, 1))
    with pytest.raises(ValueError, match="8 bytes are left over"):
        read(data + bytes(8))
    with pytest.raises(ValueError, match="'_conv_stem' has no layer"):
        fill(keras.Model(inputs, layers.ReLU()(inputs)), read(data))
