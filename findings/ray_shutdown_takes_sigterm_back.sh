#!/usr/bin/env bash
# Ray 2.60.0: ray.shutdown() gives SIGTERM back to the system, although signal.getsignal still names the handler
# that a job has set after ray.init: a job that goes on after its cluster is ended without a word.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[default]==2.60.0"
cat > "$folder/job.py" << 'PYTHON'
import os
import signal
import sys
import time

import ray

for name in [name for name in os.environ if name.startswith("RAY_")]:
    del os.environ[name]
ray.init(address="local", num_cpus=1, _temp_dir=sys.argv[1], log_to_driver=False, logging_level="ERROR")
signal.signal(signal.SIGTERM, signal.default_int_handler)
if sys.argv[2] == "after":
    ray.shutdown()
print("ray", ray.__version__, "- the handler", sys.argv[2], "a shutdown:", signal.getsignal(signal.SIGTERM), flush=True)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
except KeyboardInterrupt:
    print("it was called", flush=True)
PYTHON
run() { "$folder/venv/bin/python" "$folder/job.py" "$folder/ray" "$1" || echo "ended with status $?"; }
before=$(run before 2>&1) || true
after=$(run after 2>&1) || true
printf '%s\n%s\n' "$before" "$after"
[[ $before == *"it was called"* && $after == *"ended with status 143"* ]]
