"""jobs.score on damaged files: each has one row, and the run ends well."""

from pathlib import Path

import pandas as pd

from lib.scoring.schema import STATUSES
from tests.mutated import COUNT, mutated
from tests.ray_head import run_job


def test_every_damaged_file_has_one_row(alone: dict[str, str], model: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number, file in enumerate(mutated()):
        (images / f"{number:03}.jpg").write_bytes(file.data)  # the name does not count
    status, text = run_job(
        alone, tmp_path / "log", "jobs.score", "--images", images, "--output", output,
        "--model", model, "--max-error-rate", 1,
    )  # fmt: skip
    assert status == 0, text
    labels = pd.read_parquet(output / "labels")
    assert sorted(labels["id"]) == list(range(COUNT))
    assert labels["uri"].is_unique
    assert set(labels["status"]) <= set(STATUSES)
    assert labels["status"].isin(["ok", "no_face"]).sum() >= COUNT // 5
    failed = labels[~labels["status"].isin(["ok", "no_face"])]
    assert failed["error"].notna().all()
