"""A bundle's networks → one ONNX graph, for labelling on CPUs.

`python -m lib.models.inference_graph FOLDER` adds it to a bundle of an earlier version.
"""

import gzip
import logging
import sys
from dataclasses import replace

import onnx

from lib.common import options as command_line
from lib.common.native_output import native_errors_hidden
from lib.common.tensorflow_settings import tf
from lib.models.bundle import Bundle, read_bundle, sha256_of, write_card
from lib.models.check_crops import answers_of, check_crops
from lib.models.half_kernels import halve_kernels
from lib.models.model_card import InferenceGraph
from lib.models.onnx_predictor import COMPRESSED_FILE, INPUT, OPSET, OnnxPredictor
from lib.models.tensorflow_predictor import TensorflowPredictor

MOST_WEIGHT_BYTES = 256 << 20
"""Of a bundle with a graph. VGG-Face, which has twice as many, takes ONNX Runtime as long as TensorFlow
(`benchmarks/engines.py`), two minutes to convert, and 537 MB more in each bundle."""


def with_inference_graph(bundle: Bundle) -> Bundle:
    """Add the inference graph to a bundle on this machine, where labelling gains by it.

    Networks without a common backbone get none: their tasks run in pools of their own.

    Raises:
        UserError: the graph does not answer as the networks do.
    """
    if bundle.backbone is None or bundle.weight_bytes > MOST_WEIGHT_BYTES:
        return bundle
    tasks = bundle.tasks
    networks = TensorflowPredictor(bundle, tasks)
    model = _converted(networks, bundle.crop.size)
    halve_kernels(model, networks.weights)
    file = bundle.folder / COMPRESSED_FILE
    file.write_bytes(gzip.compress(model.SerializeToString()))
    graph = InferenceGraph(
        file.name, sha256_of(file), OPSET, answers_of(networks(check_crops(bundle.crop.size)))
    )
    made = write_card(bundle.folder, replace(bundle.card, inference=graph))
    OnnxPredictor(made, tasks, threads=1)  # it checks the answers
    if bundle.inference is not None and bundle.inference != file:
        bundle.inference.unlink()
    return made


def _converted(networks: TensorflowPredictor, size: int) -> onnx.ModelProto:
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    import tf2onnx

    crops = tf.TensorSpec((None, size, size, 3), tf.uint8, name=INPUT)
    forward = tf.function(
        lambda crops: networks.probabilities(tf.cast(crops, tf.float32)),
        input_signature=[crops], autograph=False,
    )  # fmt: skip
    with native_errors_hidden():  # TensorFlow tells how it optimises
        model, _ = tf2onnx.convert.from_function(forward, input_signature=[crops], opset=OPSET)
    return model


def main() -> int:
    """Add the graph to the bundle in the folder that the command line names."""
    with_inference_graph(read_bundle(sys.argv[1]))
    return 0


if __name__ == "__main__":
    command_line.run(main)
