#!/usr/bin/env bash
# TensorFlow 2.21.0, in the wheel that has CUDA kernels, resizes on GPUs only bilinearly and by the nearest
# pixel. `area`, `bicubic` and all that averages (`antialias=True`, `lanczos3`) has kernels for CPUs alone:
# such a layer of augmentation takes each batch from the GPU to the CPU and back, without a word, as soft
# placement allows it. Average pooling and `ImageProjectiveTransformV3` have kernels for GPUs. Seen in the
# list of kernels; no GPU is needed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1
"$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import sys

import tensorflow as tf
from tensorflow.python.framework import kernels


def devices(operation):
    return sorted({kernel.device_type for kernel in kernels.get_registered_kernels_for_op(operation).kernel})


def operations_of(**options):
    """The operations that `tf.image.resize` adds to a graph."""
    forward = tf.function(lambda x: tf.image.resize(x, (96, 96), **options))
    graph = forward.get_concrete_function(tf.TensorSpec((None, 112, 112, 3), tf.float32)).graph
    return {node.type for node in graph.get_operations() if node.type.startswith(("Resize", "Scale"))}


wanted = {
    "bilinear": ({"method": "bilinear"}, ["CPU", "GPU"]),
    "nearest": ({"method": "nearest"}, ["CPU", "GPU"]),
    "area": ({"method": "area"}, ["CPU"]),
    "bicubic": ({"method": "bicubic"}, ["CPU"]),
    "lanczos3": ({"method": "lanczos3"}, ["CPU"]),
    "bilinear, antialias": ({"method": "bilinear", "antialias": True}, ["CPU"]),
}
print("tensorflow", tf.__version__, "· built with CUDA:", tf.test.is_built_with_cuda())
as_stated = tf.test.is_built_with_cuda()
for name, (options, expected) in wanted.items():
    (operation,) = operations_of(**options)
    print(f"{name}: {operation}, kernels for {devices(operation)}")
    as_stated &= devices(operation) == expected
for operation in ("AvgPool", "ImageProjectiveTransformV3"):
    print(f"{operation}: kernels for {devices(operation)}")
    as_stated &= devices(operation) == ["CPU", "GPU"]
sys.exit(0 if as_stated else 1)
PYTHON
