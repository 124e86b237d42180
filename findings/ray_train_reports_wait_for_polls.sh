#!/usr/bin/env bash
# Ray Train 2.60.0: a worker that reports waits, with its training, until the controller polls it, every 2 s by
# default; so 6 steps of 10 ms that each report take over 8 s. RAY_TRAIN_HEALTH_CHECK_INTERVAL_S, named after
# health checks, is the interval: with 0.1 the same steps take less than half of that.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[train]==2.60.0"
cat > "$folder/reports.py" << 'PYTHON'
import os
import sys
import time

import ray
import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
STEPS = 6


def train(config):
    started = time.monotonic()
    for step in range(STEPS):
        time.sleep(0.01)
        ray.train.report({"step": step})
    with open(config["file"], "w") as file:
        file.write(str(time.monotonic() - started))


def seconds(folder, interval):
    if interval is not None:
        os.environ[INTERVAL] = interval
    file = os.path.join(folder, "seconds")
    DataParallelTrainer(
        train,
        train_loop_config={"file": file},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name=f"every-{interval}", storage_path=folder),
    ).fit()
    with open(file) as written:
        return float(written.read())


for name in [name for name in os.environ if name.startswith("RAY_")]:
    del os.environ[name]
ray.init(address="local", num_cpus=2, _temp_dir=f"{sys.argv[1]}/ray", log_to_driver=False, logging_level="ERROR")
by_default, often = (seconds(sys.argv[1], interval) for interval in (None, "0.1"))
print("ray", ray.__version__, f"- {STEPS} steps that report: {by_default:.1f} s, polled every 0.1 s: {often:.1f} s")
ray.shutdown()
sys.exit(not (by_default > 8 and often < by_default / 2))
PYTHON
"$folder/venv/bin/python" "$folder/reports.py" "$folder"
