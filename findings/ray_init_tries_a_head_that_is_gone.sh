#!/usr/bin/env bash
# Ray 2.60.0: after `ray start --head --block` was ended by a signal, ray.init() without an address does not
# start a cluster of its own: it tries the head that is gone, for more than 45 seconds, and says nothing
# where its log level is ERROR. ray.init(address="local") starts one.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${head:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[default]==2.60.0"
export PATH="$folder/venv/bin:$PATH" RAY_TMPDIR="$folder/ray"
unset RAY_ADDRESS
mkdir "$RAY_TMPDIR"
ray start --head --block --port=6397 --num-cpus=1 --include-dashboard=false --disable-usage-stats > "$folder/log" 2>&1 &
head=$!
for _ in $(seq 600); do
  grep -q "Ray runtime started" "$folder/log" && break
  sleep 0.2
done
kill -TERM "$head"
wait "$head" || true
python - <<'PYTHON'
import subprocess
import sys

import ray

START = "import ray; ray.init({} num_cpus=1, logging_level='ERROR', log_to_driver=False); ray.shutdown()"


def starts(address, seconds):
    try:
        subprocess.run([sys.executable, "-c", START.format(address)], timeout=seconds, check=True,
                       stderr=subprocess.DEVNULL)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        return type(error).__name__
    return "started"


bare = starts("", 45)
local = starts("address='local',", 120)
print("ray", ray.__version__, "- ray.init():", bare, "- ray.init(address='local'):", local)
sys.exit(0 if (bare, local) == ("TimeoutExpired", "started") else 1)
PYTHON
