"""What a run tells of itself while it goes: metrics of Ray, at the Prometheus endpoint of every node.

Ray puts `ray_` before these names. Its own metrics stand beside them: blocks that wait for each operator
(`ray_data_operator_queued_blocks`), and how busy each machine is. cluster/grafana/archive-labels.json
shows both.
Importing this imports no Ray; nothing is told where none runs.
"""

import sys
from collections import Counter
from typing import Any

ROWS = "archive_labels_rows"
LEFT = "archive_labels_images_left"
SPEED = "archive_labels_images_per_second"
STAGE_SECONDS = "archive_labels_stage_seconds"


class RunMetrics:
    """How far a run is."""

    def __init__(self, run: str, images: int) -> None:
        """Prepare.

        Args:
            run: id of the run.
            images: of the whole run.
        """
        self._tags = {"run": run}
        self._images = images
        self._gauges: dict[str, Any] = {}

    def __call__(self, counts: Counter[str], images_per_second: float) -> None:
        """Tell the rows written so far, by status, and the recent speed."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        for status, rows in counts.items():
            self._set(ROWS, "Rows written, by status", rows, status=status)
        self._set(LEFT, "Images without a row", self._images - counts.total())
        self._set(SPEED, "Recent speed of the whole run", images_per_second)

    def _set(self, name: str, description: str, value: float, **tags: str) -> None:
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description, tag_keys=("run", *tags))
        self._gauges[name].set(value, tags={**self._tags, **tags})
