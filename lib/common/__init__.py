"""What every room uses. Importing any module of it sets TensorFlow up, if it is not imported yet."""

import os

# One line for each CPU feature and each missing GPU driver, from every worker, is no news to anybody.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow takes the kernels of oneDNN by itself only where a CPU has instructions for neural networks.
# On one without (Zen 3) they were twice as fast for MTCNN, 1.3 times for the embedded model.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
