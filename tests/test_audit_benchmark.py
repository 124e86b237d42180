"""What benchmarks/audit.py plants, and how it counts what was found."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.audit import LARGEST_MOVE, LEAST_MOVE, found, with_faults

COUNT = 10_000


@pytest.fixture(scope="module")
def planted() -> tuple[pa.Table, pa.Table, pa.Table]:
    """Faces as they were, with faults, and the record."""
    rng = np.random.default_rng(0)
    age = pa.array(rng.integers(0, 101, COUNT).astype(np.int16))
    columns = {"source_row": range(COUNT), "age": age, "age_low": age, "age_high": age}
    rows = pa.table(columns | {"gender": rng.choice(["female", "male"], COUNT)})
    return rows, *with_faults(rows, np.random.default_rng(1))


def test_what_is_planted(planted: tuple[pa.Table, pa.Table, pa.Table]) -> None:
    rows, faulty, record = planted
    before, after, written = rows.to_pandas(), faulty.to_pandas(), record.to_pandas()
    assert ((before.gender != after.gender) == written.flipped).all()
    assert ((before.age != after.age) == written.moved).all()
    assert (after.age == after.age_low).all()
    assert (after.age == after.age_high).all()
    assert (written.age == before.age).all()
    by = (after.age.astype(int) - before.age)[written.moved].abs()
    assert by.min() == LEAST_MOVE
    assert by.max() == LARGEST_MOVE
    assert after.age.between(0, 100).all()
    assert 250 < written.flipped.sum() < 350 > written.moved.sum() > 250


def test_what_was_found_is_counted(planted: tuple[pa.Table, pa.Table, pa.Table]) -> None:
    """All moved ages first, then everything else: the flipped genders are found by chance."""
    _, faulty, record = planted
    order = np.argsort(~record["moved"].to_numpy(), kind="stable")
    rank = np.empty(COUNT, int)
    rank[order] = np.arange(1, COUNT + 1) * 2  # others of the split test are between
    suspects = faulty.append_column("rank", pa.array(rank))
    suspects = suspects.append_column("suspect", record["moved"])
    kinds = [["age_off"] if moved else [] for moved in record["moved"].to_pylist()]
    text = found(suspects.append_column("kinds", pa.array(kinds)), record)
    moved = int(np.sum(record["moved"].to_numpy()))
    assert f"moved ages: {moved} of {moved} (100.0%)" in text
    assert f"marked as suspect: {moved}, of them with a fault {moved}" in text
    assert f"'age_off': {moved}" in text
