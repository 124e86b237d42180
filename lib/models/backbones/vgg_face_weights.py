"""The published weights of VGG-Face: `.h5` files of the DeepFace model releases, read by order.

`vgg_face_weights.h5`, `age_model_weights.h5` and `gender_model_weights.h5` hold sixteen layers with
weights under the automatic names that Keras once gave them; only the last one is named. So the order
alone says which is which, and the shapes say whether it is true.

The files come from anywhere. They are read as arrays with h5py, never through Keras, so nothing in them
runs; those that carry code, or lead to other files, are refused, too.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lib.common.errors import UserError
from lib.models.backbones.vgg_face import FEATURES, SIZE, STAGES
from lib.tasks import TASKS

CLASSES = {name: task.classes for name, task in TASKS.items()}
IDENTITIES = 2622
"""Outputs of the published networks: of each task, and of the one that transfer learning started from."""
_GRID = SIZE >> len(STAGES)
_PICKLE = b"\x80"  # every pickle since protocol 2 starts with it


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its name here, and the shape of its kernel: height, width, in, out."""

    name: str
    kernel: tuple[int, int, int, int]


def convolutions() -> list[Layer]:
    """The thirteen that transfer learning leaves as they are."""
    layers, width = [], 3
    for stage, (count, out) in enumerate(STAGES, start=1):
        for number in range(1, count + 1):
            layers.append(Layer(f"conv{stage}_{number}", (3, 3, width, out)))
            width = out
    return layers


def top(classes: int) -> list[Layer]:
    """The three of the fully convolutional top."""
    return [
        Layer("fc6", (_GRID, _GRID, STAGES[-1][1], FEATURES)),
        Layer("fc7", (1, 1, FEATURES, FEATURES)),
        Layer("predictions", (1, 1, FEATURES, classes)),
    ]


class WeightFile:
    """A published file whose layers have been checked, and whose arrays are read when asked for."""

    def __init__(self, file: Path, classes: int) -> None:
        """Check a file without reading its arrays.

        Args:
            file: of Keras 1 or 2, weights alone or with the model.
            classes: outputs that the network has.

        Raises:
            UserError: names the file and, where one does not fit, the layer.
        """
        self.file = file
        with self._open() as h5:
            _refuse_code(h5, file)
            names = _weighted_layers(h5, file)
            expected = [*convolutions(), *top(classes)]
            if len(names) != len(expected):
                raise UserError(
                    f"{str(file)!r} has {len(names)} layers with weights, and VGG-Face has "
                    f"{len(expected)}; give one of the published files"
                )
            self._arrays = {
                layer.name: _kernel_and_bias(h5, file, number, layer, *named)
                for number, (layer, named) in enumerate(
                    zip(expected, names.items(), strict=True), start=1
                )
            }

    def read(self, layers: Sequence[Layer]) -> Iterator[NDArray[np.float32]]:
        """Kernel (height, width, in, out) and bias (out,) of each layer, one after the other."""
        with self._open() as h5:
            for layer in layers:
                for path in self._arrays[layer.name]:
                    yield h5[path][()].astype(np.float32, copy=False)

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.file, "r") as h5:
                yield h5
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"cannot read {str(self.file)!r} as HDF5: {reason}") from None


def equal(one: WeightFile, other: WeightFile, layers: Sequence[Layer]) -> bool:
    """Whether two files have the same bits in all of the layers."""
    pairs = zip(one.read(layers), other.read(layers), strict=True)
    return all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in pairs)


def _weighted_layers(h5: h5py.File, file: Path) -> dict[str, list[str]]:
    """Names of the layers that have weights, in order, with the paths of their arrays."""
    root = h5.get("model_weights", h5)  # the first where the model is in the file, too
    if "layer_names" not in root.attrs:
        raise UserError(
            f"{str(file)!r} has no list layer_names: it is no weight file of Keras 1 or 2"
        )
    prefix = root.name.rstrip("/")
    layers = {}
    for name in _texts(root.attrs["layer_names"]):
        arrays = _texts(root[name].attrs["weight_names"])
        if arrays:
            layers[name] = [f"{prefix}/{name}/{array}" for array in arrays]
    return layers


def _kernel_and_bias(
    h5: h5py.File, file: Path, number: int, layer: Layer, name: str, paths: list[str]
) -> list[str]:
    """The paths of a layer's two arrays, once their shapes are right."""
    found = [h5[path].shape for path in paths]
    wanted = [layer.kernel, layer.kernel[-1:]]
    if found != wanted:
        shapes, shapes_wanted = (" and ".join(map(str, shapes)) for shapes in (found, wanted))
        raise UserError(
            f"{str(file)!r}: layer {number} ({name!r}) has {shapes}, where {layer.name} of VGG-Face "
            f"has {shapes_wanted}"
        )
    return paths


def _refuse_code(h5: h5py.File, file: Path) -> None:
    """Only groups, arrays of floats and plain texts: nothing that a reader could run or follow."""

    def refuse(what: str) -> None:
        raise UserError(f"{str(file)!r} {what}, and is refused; only plain weights are read")

    def check(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key, value in item.attrs.items():
            _check_attribute(f"{name}@{key}", value)
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind != "f":
                refuse(f"holds {name!r} of the type {item.dtype}, which may carry code (a pickle)")
            if item.external or item.is_virtual:
                refuse(f"takes {name!r} from another file")
        elif isinstance(item, h5py.Group):
            for key in item:
                if not isinstance(item.get(key, getlink=True), h5py.HardLink):
                    refuse(f"has the link {key!r} in place of weights")

    def _check_attribute(name: str, value: Any) -> None:
        values = np.asarray(value)
        if values.dtype.kind == "V":
            refuse(f"holds {name!r} of an opaque type, which may carry code (a pickle)")
        if values.dtype.kind in "OS" and any(_is_pickle(v) for v in values.ravel().tolist()):
            refuse(f"holds a pickle in {name!r}")

    check("/", h5)
    h5.visititems(check)
    if "model_config" in h5.attrs and (names := _code_in(h5.attrs["model_config"])):
        refuse(f"has a layer that carries code ({', '.join(sorted(names))})")


def _is_pickle(value: Any) -> bool:
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return isinstance(data, bytes) and data.startswith(_PICKLE)


def _code_in(config: Any) -> set[str]:
    """Names of the layers in a model's JSON that would be made from code: Lambda and its kin."""
    found = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            name = node.get("class_name")
            if isinstance(name, str) and "lambda" in name.lower():
                found.add(name)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(json.loads(config))
    return found


def _texts(values: Any) -> list[str]:
    return [
        v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in np.asarray(values).tolist()
    ]
