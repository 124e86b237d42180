import math
from pathlib import Path

import pandas as pd
import pytest

from lib.common.errors import UserError
from lib.evaluation.truth import TruthColumns, read_truth

ROWS = {
    "file": ["a.jpg", "b.jpg", "c.jpg"],
    "apparent": [30.5, None, 7.0],
    "sd": [2.5, 3.0, None],
    "sex": ["f", "male", None],
    "origin": ["x", None, "y"],
}
NAMES = TruthColumns("file", "apparent", "sex", group="origin", sigma="sd")


@pytest.fixture(params=["csv", "parquet"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"truth.{request.param}"
    frame = pd.DataFrame(ROWS)
    frame.to_csv(path, index=False) if request.param == "csv" else frame.to_parquet(path)
    return path


def test_columns_of_any_name(table: Path) -> None:
    truth = read_truth(table, NAMES).to_pydict()
    assert truth["name"] == ROWS["file"]
    assert truth["gender"] == ["female", "male", None]
    assert truth["group"] == ROWS["origin"]
    assert truth["age"][::2] == [30.5, 7.0]  # fractions are kept
    assert truth["age"][1] is None or math.isnan(truth["age"][1])
    assert truth["sigma"][:2] == [2.5, 3.0]


def test_no_spread_unless_asked_for(table: Path) -> None:
    truth = read_truth(table, TruthColumns("file", "apparent", "sex"))
    assert "sigma" not in truth.column_names
    assert truth["group"].to_pylist() == [None] * 3


@pytest.mark.parametrize("role", ["path", "age", "gender", "group", "sigma"])
def test_a_column_that_is_missing(table: Path, role: str) -> None:
    names = TruthColumns(**{**vars(NAMES), role: "absent"})
    with pytest.raises(UserError, match=f"truth{table.suffix} .*absent"):
        read_truth(table, names)


def test_a_table_of_ages_alone(table: Path) -> None:
    truth = read_truth(table, TruthColumns("file", "apparent", gender=None))
    assert truth["gender"].null_count == len(truth)
    assert truth["age"][0].as_py() == 30.5
