import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from lib.common.errors import UserError
from lib.datasets.labels import COLUMNS
from lib.datasets.rules import Thresholds, first_rule
from lib.datasets.table import Names, UserTable, read_table
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
    columns = {"path": ["a.jpg", "b.jpg"], "age": pa.array([age, "30"], pa.string())}
    file = encoded(columns | {"gender": pa.array([gender, "f"], pa.string())}, suffix)
    table = read_table(file, f"faces{suffix}", Names())
    assert first_rule(table, Thresholds()).to_pylist() == [rule, None]


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
        ("faces.xlsx", b"", "ends in none of .csv, .tsv, .txt, .parquet"),
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


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("age", ["50-59", "more than 70", None], "'50-59' in row 1 is not a number of years"),
        ("age", [None, "(25, 32)", "old"], r"'\(25, 32\)' in row 2 is not a number of years"),
        ("gender", ["weiblich", "männlich", ""], "'weiblich' in row 1 is not female, male"),
    ],
)
def test_what_cannot_be_read_at_all_is_said(column: str, values: list[Any], says: str) -> None:
    columns = {"path": ["a", "b", "c"], "age": ["1", "2", "3"], "gender": ["f", "m", "f"]}
    file = encoded(columns | {column: values}, ".csv")
    with pytest.raises(UserError, match=f"'{column}' of faces.csv: {says}.*and so are all others"):
        read_table(file, "faces.csv", Names())


def test_what_cannot_be_read_in_part_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"path": ["a", "b", "c"], "age": ["1", "x", "y"], "gender": ["f", "m", "f"]}
    table = read_table(encoded(columns, ".csv"), "faces.csv", Names())
    assert table["age"].to_pylist() == [1, None, None]
    assert "'x' in row 2 is not a number of years" in caplog.text
    assert "rows with such values: 2" in caplog.text


def test_a_table_without_genders() -> None:
    columns = {"path": ["a", "b"], "age": ["1", "2"]}
    table = read_table(encoded(columns, ".csv"), "faces.csv", Names(gender=None))
    assert table["gender"].to_pylist() == [None, None]
    assert not UserTable(columns=Names(gender=None)).has_gender


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_text_with_any_separator(separator: str, suffix: str) -> None:
    lines = [["path", "age", "gender", "a;b,c"], ["./x//y.jpg", "20", "f", ""]]
    text = "".join(separator.join(f'"{v}"' for v in line) + "\r\n" for line in lines)
    table = read_table(io.BytesIO(b"\xef\xbb\xbf" + text.encode()), f"faces{suffix}", Names())
    assert table.select(["path", "age", "gender"]).to_pylist() == [
        {"path": "x/y.jpg", "age": 20, "gender": "female"}
    ]
