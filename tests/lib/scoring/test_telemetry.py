"""What Prometheus and Grafana see of a run, and what its log says."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.ray_head import PROJECT, Job, RayHead, ray_head, wait_until

DASHBOARD = PROJECT / "cluster" / "grafana" / "archive-labels.json"
IMAGES = 5_000
"""So many that the run is seen at work: its own metrics are told every ten seconds."""


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """A cluster that tells its metrics every second."""
    with ray_head(cpus=4, more={"RAY_metrics_report_interval_ms": "1000"}) as running:
        yield running


def test_a_run_seen_from_outside(head: RayHead, model: Path, tmp_path: Path) -> None:
    """Every metric that the dashboard asks for is there while a run goes on, with the run's id."""
    images = tmp_path / "images"
    images.mkdir()
    Image.linear_gradient("L").resize((600, 600)).save(images / "00000.png")
    for number in range(1, IMAGES):
        (images / f"{number:05}.png").hardlink_to(images / "00000.png")
    (images / "broken.png").write_bytes(b"no image")
    wanted = set(re.findall(r"ray_[a-z_]+", DASHBOARD.read_text("utf-8")))
    assert len(wanted) >= 8
    seen: dict[str, str] = {}

    def all_seen() -> bool:
        with urllib.request.urlopen(head.metrics, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                name = line.partition("{")[0]
                if name in wanted and 'status="ok"' not in seen.get(name, ""):
                    seen[name] = line
        return seen.keys() == wanted

    with Job(
        head.environment, tmp_path / "log", "jobs.score", "--images", images, "--log-json",
        "--output", tmp_path / "out", "--model", model, "--detector", "none",
        "--faces.actors", 1, "--faces.cpus", 1,
    ) as job:  # fmt: skip
        wait_until(lambda: all_seen() or job.process.poll() is not None, 250)
        assert seen.keys() == wanted, wanted - seen.keys()
        assert job.finish() == 0, job.output
    log = [json.loads(line) for line in job.output.splitlines() if line.startswith("{")]
    (run,) = {line["run"] for line in log}
    assert log[-1]["statuses"] == {"ok": IMAGES, "decode_error": 1}
    own = [line for name, line in seen.items() if name.startswith("ray_archive_labels")]
    assert len(own) == 4
    assert all(f'run="{run}"' in line for line in own)
