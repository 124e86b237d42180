"""Does jobs.audit find wrong labels, and does training gain by it?

    python -m benchmarks.audit --faces FOLDER/faces --weights FILE.weights.h5 --work FOLDER

Plants faults in the labels of the splits train and val: of 3% of the faces the gender is flipped, and of
3% the age is moved by 20 to 40 years. Audits these labels, and trains models with the same recipe: on
the labels as they were, on those with faults, and on these with the suspects of the audit counting less.
The split test keeps its labels and measures all of them.

The weights must know nothing of these faces: `models/imagenet_weights.py` makes some. What is in the
folder of the work is not done again, so that a run that was stopped goes on.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from lib.audit.suspicion import KINDS
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import SPLITS, Split
from lib.datasets.suspects import FILE
from lib.models.bundle import read_bundle
from lib.storage.folder import folder

SHARE = 0.03
LEAST_MOVE, LARGEST_MOVE = 20, 40
"""Years by which an age is moved, up or down, within 0 to 100."""
PLANTED_SPLITS: tuple[Split, ...] = ("train", "val")
RECORD = "planted.parquet"
LOOKED_AT = 0.08
"""Share of the faces that somebody looks at, the most suspect ones."""
ADULT = 18
_ROWS = 512
_RECIPE = (
    "--backbone", "efficientnet-lite0", "--batch-size", "32", "--warmup-epochs", "0.5",
    "--learning-rate", "1e-3", "--ema-momentum", "0.99",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Plant faults in labels, find them, and train without them.

    Attributes:
        faces: Folder faces/ of jobs.prepare, with exact ages.
        weights: To start from.
        work: Folder for what is made.
        folds: As of jobs.audit.
        epochs: Of each training.
        size: Side of the crops in pixels.
        suspect_weights: A model is trained with each, as of jobs.train.
        seed: Of what is planted.
    """

    faces: Path
    weights: Path
    work: Path
    folds: int = 3
    epochs: int = 4
    size: int = 64
    suspect_weights: tuple[float, ...] = (0.0, 0.3)
    seed: int = 0


def main() -> None:
    """Plant, audit, train, print what came of it."""
    options = tyro.cli(Options)
    work, planted = options.work, options.work / "planted"
    if not (planted / RECORD).exists():
        plant(options.faces, planted, options.seed)
    faulty, suspects = planted / "faces", work / "audit" / FILE
    run(options, "jobs.audit", faulty, "audit", "--folds", str(options.folds))
    print(found(pq.read_table(suspects), pq.read_table(planted / RECORD)))
    trained: dict[str, tuple[Path, tuple[str, ...]]] = {"clean": (options.faces, ())}
    for weight in options.suspect_weights:
        less = ("--suspects", str(suspects), "--suspect-weight", str(weight))
        trained[f"audited-{weight:g}"] = (faulty, less)
    trained["with-faults"] = (faulty, ())
    for name, (labels, more) in trained.items():
        run(options, "jobs.train", labels, name, *more)
        print(f"{name}: {measured(work / name / 'bundle')}")


def plant(faces: Path, output: Path, seed: int) -> None:
    """Copy faces, and change the labels of some; the two faults are drawn independently.

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


def run(options: Options, job: str, data: Path, output: str, *more: str) -> None:
    """Run a job, which says itself how far it is; it goes on where it was."""
    subprocess.run(
        [
            *(sys.executable, "-m", job, "--data", str(data)),
            *("--output", str(options.work / output), "--weights", str(options.weights), *_RECIPE),
            *("--epochs", str(options.epochs), "--size", str(options.size), *more),
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def found(suspects: pa.Table, record: pa.Table) -> str:
    """How many of the faults are among the most suspect faces, in words."""
    judged = suspects.to_pandas().merge(record.to_pandas(), on="source_row", suffixes=("", "_was"))
    # Ranks count the faces of the split test, too, in which nothing was planted.
    judged["looked_at"] = judged["rank"].rank() <= LOOKED_AT * len(judged)
    adults = judged.flipped & (judged.age_was >= ADULT)
    faulty = judged.flipped | judged.moved
    lines = [
        f"{len(judged):,} faces with {faulty.sum():,} faults; the {LOOKED_AT:.0%} most suspect:",
        f"  flipped genders of adults: {_share(judged, adults)}",
        f"  flipped genders of children: {_share(judged, judged.flipped & ~adults)}",
        f"  moved ages: {_share(judged, judged.moved)}",
        f"marked as suspect: {judged.suspect.sum():,}, of them with a fault "
        f"{(judged.suspect & faulty).sum():,}",
    ]
    kinds = {k: int(judged.kinds.map(lambda of, k=k: k in of).sum()) for k in KINDS}
    return "\n".join([*lines, f"by kind: {kinds}"])


def _share(judged: pd.DataFrame, which: pd.Series) -> str:
    hits = int((judged.looked_at & which).sum())
    return f"{hits} of {which.sum()} ({hits / max(1, which.sum()):.1%})"


def measured(bundle: Path) -> str:
    """What a model's card says about the split test."""
    metrics = read_bundle(bundle).card.metrics
    assert metrics is not None
    test = metrics["test"]
    return (
        f"{test['age']['mae']:.2f} years, gender {test['gender']['accuracy']:.1%} "
        f"({test['count']:,} faces)"
    )


if __name__ == "__main__":
    main()
