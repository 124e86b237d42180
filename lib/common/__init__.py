"""Helpers of all packages. Importing any of its modules sets TensorFlow's environment variables."""

import os

# No lines about CPU features and missing GPU drivers from every worker.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow uses oneDNN by default only on CPUs with instructions for neural networks. On a CPU without
# them (Zen 3) oneDNN was twice as fast for MTCNN, and 1.3 times for the embedded model.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
