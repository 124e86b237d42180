import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from lib.common.errors import UserError
from lib.datasets.labels import COLUMNS
from lib.datasets.rules import Thresholds, first_rule
from lib.datasets.table import Names, read_table
from lib.tasks.gender import Gender

NAN = float("nan")


def encoded(columns: dict[str, Any], suffix: str) -> io.BytesIO:
    file = io.BytesIO()
    {".csv": csv.write_csv, ".parquet": pq.write_table}[suffix](pa.table(columns), file)
    file.seek(0)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_any_name(suffix: str) -> None:
    file = encoded(
        {
            "file name": ["a.jpg", "b/ü.jpg"],
            "years": [25.9, 4],
            "sex": ["F", "Man"],
            "who": ["x", None],
            "site": [3, 4],
            "unused": [None, None],
        },
        suffix,
    )
    names = Names(path="file name", age="years", gender="sex", identity="who", group="site")
    table = read_table(file, f"faces{suffix}", names)
    assert table.schema == COLUMNS
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("a.jpg", 25, "female", "x", "3", "table", 0),
        ("b/ü.jpg", 4, "male", None, "4", "table", 1),
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("gender", "age", "rule"),
    [
        ("female", "30", None),
        ("", "30", "unknown_gender"),
        ("nan", "30", "unknown_gender"),
        ("other", "30", "unknown_gender"),
        (None, "30", "unknown_gender"),
        ("male", "", "impossible_age"),
        ("male", "NaN", "impossible_age"),
        ("male", "inf", "impossible_age"),
        ("male", "old", "impossible_age"),
        ("male", None, "impossible_age"),
        ("male", "-3", "impossible_age"),
        ("male", "1e300", "impossible_age"),
    ],
)
def test_no_row_is_lost(suffix: str, gender: str | None, age: str | None, rule: str | None) -> None:
    columns = {"path": ["a.jpg"], "age": pa.array([age], pa.string())}
    file = encoded(columns | {"gender": pa.array([gender], pa.string())}, suffix)
    table = read_table(file, f"faces{suffix}", Names())
    assert first_rule(table, Thresholds()).to_pylist() == [rule]


@pytest.mark.parametrize("codes", [[0, 1, None, 2], [0.0, 1.0, NAN, 0.5], ["0", "1", "", "x"]])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("zero", "expected"), [("female", ["female", "male"]), ("male", ["male", "female"])]
)
def test_numbers_for_gender_need_a_choice(
    codes: list[Any], suffix: str, zero: Gender, expected: list[Gender]
) -> None:
    columns = {"path": ["a", "b", "c", "d"], "age": [1, 2, 3, 4], "gender": codes}
    with pytest.raises(UserError, match=r"gender in faces.* say whether 0 is female or male"):
        read_table(encoded(columns, suffix), f"faces{suffix}", Names())
    table = read_table(encoded(columns, suffix), f"faces{suffix}", Names(), zero)
    assert table["gender"].to_pylist() == [*expected, None, None]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_missing_columns_are_named(suffix: str) -> None:
    file = encoded({"path": ["a"], "sex": ["f"]}, suffix)
    with pytest.raises(UserError, match="has no column age, gender; it has path, sex"):
        read_table(file, f"faces{suffix}", Names())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("faces.xlsx", b"", "ends neither in .csv nor in .parquet"),
        ("faces.csv", b"", "faces.csv cannot be read"),
        ("faces.csv", b"path,age,gender\na,1,f\nb,2\n", "faces.csv cannot be read: .*Expected 3"),
        ("faces.parquet", b"path,age,gender\n", "faces.parquet cannot be read"),
        ("faces.csv", b"path,age,gender\n\xff\xfe,1,f\n", "faces.csv cannot be read: .*UTF8"),
    ],
)
def test_other_files_are_refused_in_one_line(name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        read_table(io.BytesIO(content), name, Names())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_empty_identity_is_nobody(suffix: str) -> None:
    columns = {"path": ["", "a"], "age": [1, 2], "gender": ["f", "f"], "who": ["", "x"]}
    table = read_table(encoded(columns, suffix), f"faces{suffix}", Names(identity="who"))
    assert table["identity"].to_pylist() == [None, "x"]
    assert table["path"].to_pylist() == [None, "a"]


def test_a_table_without_rows() -> None:
    table = read_table(io.BytesIO(b"path,age,gender\n"), "faces.csv", Names())
    assert table.num_rows == 0
    assert table.schema == COLUMNS
