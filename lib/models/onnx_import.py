"""Foreign ONNX classifiers of age and gender → a bundle.

Their graphs become parts of one inference graph, from crops to the classes of the tasks: what stands
around them, from the conversion of pixels to the meaning of their outputs, is added as operations.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from lib.common.errors import UserError, reason_of
from lib.models.bundle import Bundle, sha256_of, write_card
from lib.models.check_crops import answers_of, check_crops
from lib.models.model_card import InferenceGraph, ModelCard, NetworkFile, Training
from lib.models.onnx_description import NetworkDescription, OnnxDescription
from lib.models.onnx_predictor import FILE, INPUT, OPSET, GraphNetwork
from lib.network_input import Pixels
from lib.tasks import TASKS


def write_onnx_bundle(description: OnnxDescription, folder: Path, code: str) -> Bundle:
    """Write a bundle of one inference graph.

    Args:
        description: of the networks.
        folder: for the bundle; made if it does not exist.
        code: version of the code, for the card.

    Raises:
        UserError: a network cannot be read, used or understood.
        OSError: the bundle cannot be written.
    """
    size = description.crop.size
    graph = _whole(
        [
            _Part(task, network, _read(description.folder / network.file)).graph(size)
            for task, network in description.networks.items()
        ]
    )
    answers = _answers(graph, description)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(graph.SerializeToString())
    card = ModelCard(
        name=description.name,
        crop=description.crop,
        pixels=Pixels(),
        inference=InferenceGraph(FILE, sha256_of(folder / FILE), OPSET, answers),
        training=Training(source=description.source, terms=description.terms),
        code=code,
        sources={
            task: NetworkFile(network.file, sha256_of(description.folder / network.file))
            for task, network in description.networks.items()
        },
    )
    return write_card(folder, card)


def _read(file: Path) -> onnx.ModelProto:
    """A network that is whole in its file."""
    try:
        model = onnx.load(file, load_external_data=False)
        if any(t.data_location == TensorProto.EXTERNAL for t in _tensors(model.graph)):
            raise UserError(f"{str(file)!r} has weights in other files; save it as one file")
        if others := {o.domain for o in model.opset_import} - {"", "ai.onnx"}:
            raise UserError(
                f"{str(file)!r} has operators of {sorted(others)[0]!r}, which are not ONNX's"
            )
        onnx.checker.check_model(model)
        return version_converter.convert_version(model, OPSET)
    except OSError as error:
        raise UserError(f"cannot read {str(file)!r}: {reason_of(error)}") from None
    # The parser of protobuf, the checker and the converter have errors of their own.
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(file)!r} is no ONNX network: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors that are written in a graph, and in those within it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                yield from _tensors(inner)


class _Part:
    """A network with what stands around it, under names of its own.

    Args:
        task: that it answers.
        network: how it is used.
        model: the network.
    """

    def __init__(self, task: str, network: NetworkDescription, model: onnx.ModelProto) -> None:
        self._task, self._network = task, network
        initial = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in initial]
        if len(inputs) != 1:
            raise self._error(f"takes {len(inputs)} inputs; a classifier of faces takes one")
        (self._input,) = inputs
        self._output = self._the_output(model.graph)
        self._channels_first, self._side = self._layout()
        for value in (self._input, self._output):
            value.type.tensor_type.shape.dim[0].dim_param = "faces"  # any number of them
        self._model = model
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def graph(self, size: int) -> onnx.ModelProto:
        """From crops, uint8 (n, size, size, 3) RGB, to classes, float32 (n, classes)."""
        task = self._task
        model = compose.add_prefix(self._model, f"{task}/")
        (given,) = (v for v in model.graph.input if v.name == f"{task}/{self._input.name}")
        x = self._prepared(size)
        self._add("Identity", [x], given.name)
        before, self._nodes = self._nodes, []
        self._classes(f"{task}/{self._output.name}")
        graph = helper.make_graph(
            [*before, *model.graph.node, *self._nodes],
            task,
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["faces", size, size, 3])],
            [
                helper.make_tensor_value_info(
                    task, TensorProto.FLOAT, ["faces", TASKS[task].classes]
                )
            ],
            [*self._constants, *model.graph.initializer],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=self._model.ir_version
        )

    def _prepared(self, size: int) -> str:
        """Crops → input of the network, as `lib.network_input.network_input` computes it."""
        pixels = self._network.pixels
        x = self._add("Cast", [INPUT], to=TensorProto.FLOAT)
        if pixels.channels == "bgr":
            x = self._add("Gather", [x, self._constant(np.array([2, 1, 0]))], axis=3)
        x = self._add("Mul", [x, self._constant(np.float32(pixels.scale))])
        x = self._add("Sub", [x, self._constant(np.asarray(pixels.mean, np.float32))])
        x = self._add("Div", [x, self._constant(np.float32(pixels.std))])
        x = self._add("Transpose", [x], perm=[0, 3, 1, 2])
        if self._side != size:
            scales = np.array([1, 1, self._side / size, self._side / size], np.float32)
            x = self._add("Resize", [x, "", self._constant(scales)], mode="linear", antialias=1)
        return x if self._channels_first else self._add("Transpose", [x], perm=[0, 2, 3, 1])

    def _classes(self, x: str) -> None:
        """Outputs of the network → the classes of the task."""
        outputs = self._output.type.tensor_type.shape.dim[1].dim_value
        if self._network.softmax:
            x = self._add("Sigmoid" if outputs == 1 else "Softmax", [x])
        if outputs == 1:
            other = self._add("Sub", [self._constant(np.float32(1)), x])
            x = self._add("Concat", [other, x], axis=1)
        try:
            matrix = self._network.matrix(self._task, outputs)
        except ValueError as error:
            raise self._error(f"has classes that do not fit: {error}") from None
        self._add("MatMul", [x, self._constant(matrix)], self._task)

    def _the_output(self, graph: onnx.GraphProto) -> onnx.ValueInfoProto:
        name = self._network.output
        found = [value for value in graph.output if name in (None, value.name)]
        if len(found) != 1:
            names = ", ".join(value.name for value in graph.output)
            raise self._error(f'has the outputs {names}; choose one with "output"')
        shape = found[0].type.tensor_type.shape.dim
        if len(shape) != 2 or not shape[1].dim_value:
            raise self._error(
                f"gives {found[0].name} as {_shape(found[0])}, not one row for each face"
            )
        return found[0]

    def _layout(self) -> tuple[bool, int]:
        """Whether channels come before rows, and the side of its input in pixels."""
        sides = [dim.dim_value for dim in self._input.type.tensor_type.shape.dim]
        match sides:
            case [_, 3, height, width] if height == width > 0:
                return True, height
            case [_, height, width, 3] if height == width > 0:
                return False, height
        raise self._error(f"takes {_shape(self._input)}, not squares of three channels")

    def _add(self, operation: str, inputs: list[str], output: str | None = None, **how: Any) -> str:
        output = output or f"{self._task}:{operation}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operation, inputs, [output], **how))
        return output

    def _constant(self, values: NDArray[Any] | np.generic) -> str:
        name = f"{self._task}:constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _error(self, what: str) -> UserError:
        return UserError(f"the network {self._network.file!r} for the {self._task} {what}")


def _shape(value: onnx.ValueInfoProto) -> str:
    sides = [dim.dim_param or str(dim.dim_value or "?") for dim in value.type.tensor_type.shape.dim]
    return f"({', '.join(sides)})"


def _whole(parts: list[onnx.ModelProto]) -> onnx.ModelProto:
    """All parts on the same crops."""
    first, *others = parts
    for part in others:
        first.graph.node.extend(part.graph.node)
        first.graph.initializer.extend(part.graph.initializer)
        first.graph.output.extend(part.graph.output)
        first.ir_version = max(first.ir_version, part.ir_version)
    return first


def _answers(graph: onnx.ModelProto, description: OnnxDescription) -> dict[str, tuple[float, ...]]:
    """Of the whole graph to the check crops.

    Raises:
        UserError: it cannot be computed, or does not give probabilities.
    """
    crops = check_crops(description.crop.size)
    try:
        found = GraphNetwork(graph.SerializeToString(), tuple(description.networks), 1, len(crops))(
            crops
        )
    # ONNX Runtime has errors of many kinds for graphs, and exports none of them.
    except Exception as error:
        raise UserError(
            f"ONNX Runtime cannot compute the networks for {len(crops)} faces at once: "
            f"{_first_line(error)}"
        ) from None
    for task, values in found.items():
        if not (values.min() > -1e-4 and np.abs(values.sum(axis=1) - 1).max() < 1e-3):
            raise UserError(
                f"the outputs of the network for the {task} are no probabilities; "
                'if they are logits, set "softmax": true for it'
            )
    return answers_of(found)
