"""Metrics of a run, at the Prometheus endpoint of every Ray node.

Ray adds the prefix `ray_`. Its own metrics are there, too: blocks that wait for each operator
(`ray_data_operator_queued_blocks`), and the load of each machine. cluster/grafana/archive-labels.json
shows both. Importing this module does not import Ray; without Ray it does nothing.
"""

import sys
from collections import Counter
from typing import Any

ROWS = "archive_labels_rows"
LEFT = "archive_labels_images_left"
SPEED = "archive_labels_images_per_second"
STAGE_SECONDS = "archive_labels_stage_seconds"


class RunMetrics:
    """The progress of a run as Ray metrics."""

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
        """Set the rows written so far, by status, and the recent speed."""
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
