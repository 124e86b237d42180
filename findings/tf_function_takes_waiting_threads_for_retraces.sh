#!/usr/bin/env bash
# TensorFlow 2.21.0: six threads that make the first call of a `tf.function` together, with inputs of one shape and
# an input signature, trace it once. Yet TensorFlow warns that "5 out of the last 5 calls" and "6 out of the last 6
# calls triggered tf.function retracing", and names three causes, none of which is there: it takes each thread that
# waited for the one trace for a retrace.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "tensorflow==2.21.0"
cat > "$folder/traces.py" << 'PYTHON'
import logging
import os
import sys
from threading import Barrier, Thread

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

THREADS = 6
traces, warnings = [], []


class Kept(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())


@tf.function(input_signature=[tf.TensorSpec((2, 2), tf.float32)], autograph=False)
def total(values):
    traces.append(None)
    for _ in range(200):  # long enough that all threads are there
        values = values + 1.0
    return tf.reduce_sum(values)


def call():
    together.wait()
    total(tf.ones((2, 2)))


tf.get_logger().handlers = [Kept()]
tf.ones((2, 2))
together = Barrier(THREADS)
threads = [Thread(target=call) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
retraces = [warning for warning in warnings if "triggered tf.function retracing" in warning]
print("tensorflow", tf.__version__, "- traces:", len(traces), "- warnings of retracing:", len(retraces))
for warning in retraces:
    print(warning[:40])
sys.exit(not (len(traces) == 1 and [w[:23] for w in retraces] == ["5 out of the last 5 cal", "6 out of the last 6 cal"]))
PYTHON
"$folder/venv/bin/python" "$folder/traces.py" 2> /dev/null
