#!/usr/bin/env bash
# TensorFlow 2.21.0 and Ray 2.60.0: AutoGraph writes a file __autograph_generated_file*.py into the temporary folder
# for each function that it converts, and removes it when Python exits. A process by itself leaves none. A Ray task
# leaves all of its files when ray.shutdown() ends its worker; an actor that goes out of scope before leaves none.
# Trainings and their tests on one machine had left more than a thousand. `tf.function(autograph=False)` writes none.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "tensorflow==2.21.0" "ray[default]==2.60.0"
cat > "$folder/traced.py" << 'PYTHON'
import glob
import os
import sys
import tempfile
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def trace():
    """Trace a function that calls another one; gives the files that are there then."""
    import tensorflow as tf

    def twice(x):
        return x + x

    tf.function(lambda x: twice(x))(tf.constant(1.0))
    return files()


def files():
    return len(glob.glob(os.path.join(tempfile.gettempdir(), "__autograph_generated_file*.py")))


class Tracer:
    def trace(self):
        return trace()


if __name__ == "__main__":
    if sys.argv[1] == "process":
        print(trace())
        sys.exit()
    import ray

    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    ray.init(
        address="local", num_cpus=1, _temp_dir=sys.argv[2], log_to_driver=False, logging_level="ERROR",
        include_dashboard=False,
    )
    if sys.argv[1] == "task":
        print(ray.get(ray.remote(trace).remote()))
    else:
        actor = ray.remote(Tracer).remote()
        print(ray.get(actor.trace.remote()))
        del actor
        give_up = time.monotonic() + 60
        while files() and time.monotonic() < give_up:
            time.sleep(0.1)
    ray.shutdown()
PYTHON
"$folder/venv/bin/python" -c 'from importlib.metadata import version; print("tensorflow", version("tensorflow"), "ray", version("ray"))'
found=""
for kind in process task actor; do
  mkdir "$folder/$kind"
  during=$(cd "$folder" && TMPDIR="$folder/$kind" venv/bin/python -B traced.py "$kind" "$folder/ray-$kind" 2> "$folder/$kind.log")
  left=$(find "$folder/$kind" -name "__autograph_generated_file*.py" | wc -l)
  echo "$kind: $during files while it runs, $left left"
  found="$found $during/$left"
done
[ "$found" = " 2/0 2/2 2/0" ]
