"""Labelled faces for training: pictures from which age and gender can be learned at once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.nasty import jpeg

SIDE = 40


def make_faces(folder: Path, train: int, val: int, test: int = 20) -> Path:
    """Write `folder/split=…` with the columns of jobs/prepare.py, for that many faces each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", test)):
        ages = rng.integers(5, 95, count)
        genders = rng.integers(0, 2, count)
        table = pa.table(
            {
                "image": [face(int(a), int(g), rng) for a, g in zip(ages, genders, strict=True)],
                "age": ages.astype(np.int16),
                "gender": np.array(["female", "male"])[genders],
                "group": ["a"] * count,
                "source": ["made"] * count,
                "source_row": range(count),
                "sha256": [f"{split}{number:059}" for number in range(count)],
            }
        )
        target = folder / f"split={split}"
        target.mkdir(parents=True)
        pq.write_table(table, target / "part-0.parquet", row_group_size=64)
    return folder


def face(age: int, gender: int, rng: np.random.Generator) -> bytes:
    """Brighter the older, red or blue by gender, and noise."""
    pixels = rng.integers(0, 30, (SIDE, SIDE, 3))
    pixels += 2 * age
    pixels[..., 0 if gender else 2] += 30
    return jpeg(pixels.clip(0, 255).astype(np.uint8))
