#!/usr/bin/env bash
# Ray 2.60.0: a thread that Ray Data stops without waiting for it ends up, where it is late, calling Ray after
# ray.shutdown(): that call connects the process to the cluster again, and a second ray.init at this moment fails.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[data]==2.60.0"
cat > "$folder/job.py" << 'PYTHON'
import os
import sys
import threading
import time

for name in [name for name in os.environ if name.startswith("RAY_")]:
    del os.environ[name]
os.environ["RAY_DATA_USAGE_DISABLED"] = "1"
import ray
import ray.data

wait = ray.wait


def late(*arguments, **options):
    """As on a machine with much to do: the thread that fetches ahead gets its turn a second later."""
    if threading.current_thread().name == "Prefetcher":
        time.sleep(1)
    return wait(*arguments, **options)


ray.wait = late
ray.init(address="local", num_cpus=1, _temp_dir=sys.argv[1], log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
rows = sum(len(batch["id"]) for batch in ray.data.range(64, override_num_blocks=4).iter_batches(batch_size=8))
ray.shutdown()
print("ray", ray.__version__, "- rows:", rows, "- connected after the shutdown:", ray.is_initialized(), flush=True)
end = time.monotonic() + 60
while not ray.is_initialized() and time.monotonic() < end:
    time.sleep(0.1)
print("connected a little later, without a call of the program:", ray.is_initialized(), flush=True)
PYTHON
seen=$("$folder/venv/bin/python" "$folder/job.py" "$folder/ray" 2> "$folder/errors")
printf '%s\n' "$seen"
[[ $seen == *"after the shutdown: False"*"of the program: True" ]]
