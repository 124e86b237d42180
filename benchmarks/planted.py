"""Faces of jobs.prepare with faults planted in their labels, and the record of what was planted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import SPLITS, Split
from lib.storage.folder import folder

SHARE = 0.03
LEAST_MOVE, LARGEST_MOVE = 20, 40
"""Years by which an age is moved, up or down, within 0 to 100."""
PLANTED_SPLITS: tuple[Split, ...] = ("train", "val")
"""The split test keeps its labels: it measures what training makes of the others."""
RECORD = "planted.parquet"
_ROWS = 512


def plant(faces: Path, output: Path, seed: int) -> None:
    """Copy faces, and change the labels of some.

    Of 3% of the faces the gender is flipped, and of 3% the age is moved by 20 to 40 years; the two are
    drawn independently.

    Args:
        faces: folder faces/ of jobs.prepare, with exact ages.
        output: for faces/ and `RECORD`, which has `source_row`, `age` and `gender` as they were, and
            `flipped` and `moved`.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    records = []
    for split in SPLITS:
        source = LabelledFaces(folder(faces), split)
        target = output / "faces" / f"split={split}"
        target.mkdir(parents=True)
        for file in source.files:
            with (
                pq.ParquetFile(file) as parquet,
                pq.ParquetWriter(target / Path(file).name, parquet.schema_arrow) as writer,
            ):
                for batch in parquet.iter_batches(_ROWS):
                    rows = pa.Table.from_batches([batch])
                    if split in PLANTED_SPLITS:
                        rows, record = with_faults(rows, rng)
                        records.append(record)
                    writer.write_table(rows)
    pq.write_table(pa.concat_tables(records), output / RECORD)


def with_faults(rows: pa.Table, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """The rows with some labels changed, and the record of all of them."""
    age = rows["age"].to_numpy()
    female = np.array(rows["gender"].to_pylist()) == "female"
    flipped, moved = rng.random((2, len(rows))) < SHARE
    by = rng.integers(LEAST_MOVE, LARGEST_MOVE + 1, len(rows)) * rng.choice([-1, 1], len(rows))
    outside = (age + by < 0) | (age + by > 100)
    ages = pa.array(np.where(moved, age + np.where(outside, -by, by), age).astype(np.int16))
    genders = pa.array(np.where(female ^ flipped, "female", "male"))
    record = rows.select(["source_row", "age", "gender"])
    record = record.append_column("flipped", pa.array(flipped))
    record = record.append_column("moved", pa.array(moved))
    new = dict.fromkeys(("age", "age_low", "age_high"), ages) | {"gender": genders}
    for name in new.keys() & set(rows.column_names):
        rows = rows.set_column(rows.column_names.index(name), name, new[name])
    return rows, record
