import math

import pyarrow as pa
import pytest

from lib.datasets.rules import IMAGE_RULES, REASONS, Thresholds, duplicate_rule, first_rule

GOOD = {
    "face_score": 2.0,
    "second_face_score": math.nan,
    "gender": "female",
    "age": 30,
    "sha256": "ab",
    "width": 200,
    "height": 100,
}
TYPES = pa.schema(
    [
        ("face_score", pa.float64()),
        ("second_face_score", pa.float64()),
        ("gender", pa.string()),
        ("age", pa.int16()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


def rows(*changes: dict) -> pa.Table:
    return pa.Table.from_pylist([GOOD | change for change in changes], schema=TYPES)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, None),
        ({"face_score": -math.inf}, "no_face"),
        ({"face_score": math.nan}, "no_face"),
        ({"face_score": None}, "no_face"),
        ({"face_score": 0.99}, "low_face_score"),
        ({"face_score": 1.0}, None),
        ({"second_face_score": 0.01}, "second_face"),
        ({"second_face_score": 0.0}, None),
        ({"second_face_score": None}, None),
        ({"gender": None}, "unknown_gender"),
        ({"age": None}, "impossible_age"),
        ({"age": -1}, "impossible_age"),
        ({"age": 0}, None),
        ({"age": 100}, None),
        ({"age": 101}, "impossible_age"),
        ({"face_score": -math.inf, "second_face_score": 3.0, "gender": None}, "no_face"),
        ({"second_face_score": 3.0, "gender": None, "age": None}, "second_face"),
        ({"gender": None, "age": None}, "unknown_gender"),
    ],
)
def test_metadata_rules(change: dict, rule: str | None) -> None:
    assert first_rule(rows(change), Thresholds()).to_pylist() == [rule]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({}, None),
        ({"sha256": None, "width": None, "height": None}, "missing_image"),
        ({"width": None, "height": None}, "unreadable_image"),
        ({"height": 31}, "too_small"),
        ({"width": 31}, "too_small"),
        ({"width": 32, "height": 32}, None),
    ],
)
def test_image_rules(change: dict, rule: str | None) -> None:
    assert first_rule(rows(change), Thresholds(), IMAGE_RULES).to_pylist() == [rule]


def test_thresholds_are_obeyed() -> None:
    limits = Thresholds(
        min_face_score=3.0, max_second_face_score=9.0, min_age=18, max_age=40, min_size=10
    )
    table = rows({}, {"face_score": 3.0, "second_face_score": 8.0}, {"face_score": 3.0, "age": 17})
    assert first_rule(table, limits).to_pylist() == ["low_face_score", None, "impossible_age"]


def test_a_rule_asks_nothing_of_a_table_without_its_columns() -> None:
    table = rows({"face_score": -math.inf, "gender": None}, {"face_score": -math.inf})
    without_scores = table.drop_columns(["face_score", "second_face_score"])
    assert first_rule(without_scores, Thresholds()).to_pylist() == ["unknown_gender", None]


def test_no_row() -> None:
    assert first_rule(TYPES.empty_table(), Thresholds()).to_pylist() == []
    assert duplicate_rule(pa.array([], pa.string()), pa.array([], pa.int16())).to_pylist() == []


def test_rules_have_an_order_and_a_reason() -> None:
    assert list(REASONS) == [
        "no_face",
        "low_face_score",
        "second_face",
        "no_box",
        "unknown_gender",
        "impossible_age",
        "missing_image",
        "unreadable_image",
        "box_outside",
        "too_small",
        "duplicate",
        "duplicate_conflict",
    ]
    assert all(REASONS.values())


@pytest.mark.parametrize(
    ("images", "ages", "expected"),
    [
        ("abc", [1, 2, 3], [None, None, None]),
        ("aba", [5, 9, 5], [None, None, "duplicate"]),
        ("aab", [5, 6, 9], [None, "duplicate", None]),  # a year apart is no conflict
        ("baa", [9, 5, 7], [None, "duplicate_conflict", "duplicate_conflict"]),
        ("aaa", [5, 6, 7], ["duplicate_conflict"] * 3),
        ("abab", [5, 1, 5, 9], [None, "duplicate_conflict", "duplicate", "duplicate_conflict"]),
    ],
)
def test_duplicates(images: str, ages: list[int], expected: list[str | None]) -> None:
    found = duplicate_rule(pa.array(list(images)), pa.array(ages, pa.int16()))
    assert found.to_pylist() == expected
