#!/usr/bin/env bash
# Ray 2.60.0: workers run at niceness 15 while their driver runs at 0, so on a shared machine any ordinary
# process takes nearly all of a core from labelling or training; RAY_worker_niceness changes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[default]==2.60.0"
cat > "$folder/nice.py" << 'PYTHON'
import os
import sys

import ray

for name in [name for name in os.environ if name.startswith("RAY_")]:
    del os.environ[name]
ray.init(address="local", num_cpus=1, _temp_dir=sys.argv[1], log_to_driver=False, logging_level="ERROR")


@ray.remote
def niceness():
    return os.nice(0)


driver, task = os.nice(0), ray.get(niceness.remote())
print("ray", ray.__version__, "- niceness of the driver:", driver, "- of a task:", task)
ray.shutdown()
sys.exit(task - driver != min(15, 19 - driver))
PYTHON
"$folder/venv/bin/python" "$folder/nice.py" "$folder/ray"
