#!/usr/bin/env bash
# tf2onnx 1.17.0 converts one Keras network to another file in each process: Python's hash seed chooses the
# order and the names of tensors that it folds. The answers are the same, to the bit, but a digest of the
# file says that the model has changed. With PYTHONHASHSEED=0 in both processes the files are equal.
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
for seed in 1 2; do
  PYTHONHASHSEED=$seed "$folder/venv/bin/python" convert.py "seed$seed.onnx" 2>"$folder/log"
  PYTHONHASHSEED=0 "$folder/venv/bin/python" convert.py "fixed$seed.onnx" 2>"$folder/log"
done
"$folder/venv/bin/python" - <<'PYTHON'
import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime

files = {name: Path(f"{name}.onnx").read_bytes() for name in ("seed1", "seed2", "fixed1", "fixed2")}
digests = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in files.items()}
crops = np.random.default_rng(0).random((4, 96, 96, 3), np.float32)


def answers(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: crops})[0]


same = np.array_equal(answers(files["seed1"]), answers(files["seed2"]))
print("tf2onnx", version("tf2onnx"), "· digests:", digests, "· answers equal:", same)
as_stated = digests["seed1"] != digests["seed2"] and digests["fixed1"] == digests["fixed2"] and same
sys.exit(0 if as_stated else 1)
PYTHON
