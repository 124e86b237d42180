"""Pools sized by what is measured, on a real cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.ray_head import PROJECT, RayHead

MEASURE = """
import json, sys
import pyarrow as pa
from lib.scoring import engine
from lib.scoring import rates
from lib.scoring.labelling import Labelling
from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import read_bundle
from lib.scoring.placement import FACES, MODELS, Pool
from lib.scoring.stages.fetch import Fetch
model, *images = sys.argv[1:]
labelling = Labelling(
    Fetch(10**7), DetectorSpec("none"), Limits(), read_bundle(model), age_distribution=False
)
pools = [Pool(FACES, (FACES,), 2, 0.5), Pool(MODELS, ("age", "gender"), 2, 0.5)]
with engine.cluster():
    rows = pa.table({"id": range(len(images)), "uri": images})
    print(json.dumps(rates.measure(labelling, pools, rows)))
"""


@pytest.mark.parametrize("good", [12, 0])
def test_a_worker_of_each_pool_is_measured(
    head: RayHead, model: Path, tmp_path: Path, good: int
) -> None:
    """And none where no face is found, which would make every model look fast."""
    images = [str(tmp_path / f"{number}.png") for number in range(12)]
    for image in images[:good]:
        Image.linear_gradient("L").save(image)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), *images],
        cwd=PROJECT, env=head.environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rates = json.loads(done.stdout.splitlines()[-1])
    assert set(rates) == ({"faces", "models"} if good else set())
    assert all(rate > 0 for rate in rates.values())
