#!/usr/bin/env bash
# Ray 2.60.0 sets OMP_NUM_THREADS to a worker's `num_cpus`, so that a pool of workers does not start more threads than
# there are cores. OpenCV 5.0.0 of PyPI does not heed it: with `num_cpus=1` it computes with as many threads as the
# machine has cores, in each worker of a pool. `cv2.setNumThreads(1)` in the worker helps. Needs two cores or more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
RAY_TMPDIR="$folder/ray" "$folder/venv/bin/python" - 2>"$folder/log" <<'PYTHON'
import os
import sys

import cv2
import numpy as np
import ray

ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote(num_cpus=1, max_calls=1)
def threads(wanted=None):
    """OMP_NUM_THREADS, what OpenCV says, and the threads that a process has more after a resizing."""
    if wanted:
        cv2.setNumThreads(wanted)
    before = len(os.listdir("/proc/self/task"))
    cv2.resize(np.zeros((4000, 6000, 3), np.uint8), (1500, 1000))
    return os.environ["OMP_NUM_THREADS"], cv2.getNumThreads(), len(os.listdir("/proc/self/task")) - before


cores = len(os.sched_getaffinity(0))
default = ray.get(threads.remote())
alone = ray.get(threads.remote(wanted=1))
print("ray", ray.__version__, "· opencv", cv2.__version__, "· cores", cores)
print("OMP_NUM_THREADS, OpenCV's threads, threads started:", default, "· after cv2.setNumThreads(1):", alone)
sys.exit(0 if cores > 1 and default == ("1", cores, cores - 1) and alone == ("1", 1, 0) else 1)
PYTHON
