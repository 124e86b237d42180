"""Training on ages that are known as bands, of faces without genders."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.models.bundle import read_bundle
from tests.made_faces import make_faces
from tests.ray_head import RayHead, run_job


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Ages in bands of ten years, and no genders."""
    folder = make_faces(tmp_path / "faces", train=67, val=27)
    for file in folder.rglob("*.parquet"):
        table = pq.ParquetFile(file).read().drop_columns("gender")
        low = table["age"].to_numpy() // 10 * 10
        bands = {"age": low + 4, "age_low": low, "age_high": low + 9}
        for name, years in bands.items():
            rest = table.drop_columns(name) if name in table.column_names else table
            table = rest.append_column(name, pa.array(years.astype(np.int16)))
        nothing = pa.nulls(len(table), pa.string())
        pq.write_table(table.append_column("gender", nothing), file)
    return folder


def test_bands_without_genders_train_a_model_of_the_age(
    head: RayHead, faces: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    status, text = run_job(
        head.environment, tmp_path / "log", "jobs.train", "--data", faces, "--output", output,
        "--tasks", "age", "--batch-size", 32, "--epochs", 1, "--size", 32, "--cpus", 1,
    )  # fmt: skip
    assert status == 0, text
    (epoch,) = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
    assert 0 <= epoch["val_in_band"] <= 1
    assert "in band" in text
    metrics = read_bundle(output / "bundle").card.metrics
    assert metrics is not None
    test = metrics["test"]
    assert test["count"] == 20
    assert 0 <= test["age"]["in_band"] <= 1
    assert "age inside the true band" in (output / "bundle" / "CARD.md").read_text()
