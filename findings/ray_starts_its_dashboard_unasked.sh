#!/usr/bin/env bash
# Ray 2.60.0: ray.init(include_dashboard=False) on a machine of its own starts the process of the dashboard
# all the same, and so a driver that wants none pays for it at every start.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[default]==2.60.0" "psutil==7.2.2"
cat > "$folder/start.py" << 'PYTHON'
import os
import sys

import psutil
import ray

for name in [name for name in os.environ if name.startswith("RAY_")]:
    del os.environ[name]
ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1],
         log_to_driver=False, logging_level="ERROR")
commands = [process.cmdline() for process in psutil.Process().children(recursive=True)]
words = {os.path.basename(word) for command in commands for word in command}
print("ray", ray.__version__, "- dashboard.py among its processes:", "dashboard.py" in words)
ray.shutdown()
sys.exit("dashboard.py" not in words)
PYTHON
"$folder/venv/bin/python" "$folder/start.py" "$folder/ray"
