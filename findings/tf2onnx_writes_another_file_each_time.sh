#!/usr/bin/env bash
# tf2onnx 1.17.0 converts one Keras network to another file in each process, also with PYTHONHASHSEED=0: the
# order and the names of the tensors that it folds change. The answers are the same, to the bit, but a
# digest of the file says that the model has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnxruntime==1.32.0
cd "$folder"
cat >convert.py <<'PYTHON'
import sys

import keras
import tensorflow as tf
import tf2onnx

keras.utils.set_random_seed(0)
network = keras.applications.MobileNet(input_shape=(96, 96, 3), alpha=0.25, weights=None)
crops = tf.TensorSpec((None, 96, 96, 3), tf.float32, name="crops")
forward = tf.function(lambda x: network(x, training=False), input_signature=[crops])
model, _ = tf2onnx.convert.from_function(forward, input_signature=[crops], opset=18)
with open(sys.argv[1], "wb") as file:
    file.write(model.SerializeToString())
PYTHON
for number in 1 2 3; do
  PYTHONHASHSEED=0 "$folder/venv/bin/python" convert.py "$number.onnx" 2>"$folder/log"
done
"$folder/venv/bin/python" - <<'PYTHON'
import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime

files = [Path(f"{number}.onnx").read_bytes() for number in (1, 2, 3)]
digests = [hashlib.sha256(content).hexdigest()[:12] for content in files]
crops = np.random.default_rng(0).random((4, 96, 96, 3), np.float32)


def answers(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: crops})[0]


first, *others = map(answers, files)
same = all(np.array_equal(first, other) for other in others)
sizes = sorted({len(content) for content in files})
print("tf2onnx", version("tf2onnx"), "· digests:", digests, "· bytes:", sizes, "· answers equal:", same)
sys.exit(0 if len(set(digests)) > 1 and same else 1)
PYTHON
