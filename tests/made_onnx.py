"""Foreign ONNX classifiers: two networks, whose layouts, sizes, pixels and outputs differ."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
BANDS = ["0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60-100"]
AGE_PIXELS: dict[str, Any] = {
    "channels": "bgr",
    "scale": 1.0,
    "mean": [104.0, 117.0, 123.0],
    "std": 50.0,
}
GENDER_PIXELS = {"scale": 1 / 255, "mean": 0.5, "std": 0.5}
RNG = np.random.default_rng(3)
AGE_WEIGHTS = RNG.normal(0, 1, (3, len(BANDS))).astype(np.float32)
GENDER_WEIGHTS = RNG.normal(0, 2, (3, 1)).astype(np.float32)


def save_network(
    file: Path, shape: list[Any], weights: NDArray[np.float32], last: str = "Softmax", **more: Any
) -> None:
    """Mean of each channel → a matrix → probabilities or logits."""
    rows = [2, 3] if shape[1] == 3 else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["x", "rows"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node(last, ["logits"], ["y"], **more),
    ]
    constants: dict[str, NDArray[Any]] = {
        "rows": np.array(rows, np.int64),
        "weights": weights,
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], weights.shape[1]])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    if more.get("domain"):
        opsets.append(helper.make_opsetid(more["domain"], 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)


def make_networks(folder: Path) -> dict[str, Any]:
    """Write both networks; gives what describes them."""
    save_network(folder / "age.onnx", [1, 3, SIZE, SIZE], AGE_WEIGHTS)
    save_network(folder / "gender.onnx", ["n", 16, 16, 3], GENDER_WEIGHTS, last="Identity")
    return {
        "name": "foreign",
        "source": "these tests",
        "terms": "CC0-1.0",
        "crop": {"size": SIZE, "align": "box", "margin": 0.1},
        "networks": {
            "age": {"file": "age.onnx", "pixels": AGE_PIXELS, "classes": BANDS},
            "gender": {
                "file": "gender.onnx",
                "pixels": GENDER_PIXELS,
                "classes": ["female"],
                "softmax": True,
            },
        },
    }


def make_described(folder: Path) -> Path:
    """Write both networks and the description; gives its file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.json"
    file.write_text(json.dumps(make_networks(folder)))
    return file
