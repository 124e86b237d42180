"""The models. Importing any module of this package quiets TensorFlow before it is imported."""

import os

# One line for each CPU feature and each missing GPU driver, from every worker, is no news to anybody.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
