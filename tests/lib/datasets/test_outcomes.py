import pyarrow as pa

from lib.datasets.ingest import FOUND
from lib.datasets.labels import COLUMNS, SHARES, split_of
from lib.datasets.outcomes import VERDICTS, judge, judge_metadata

KEPT = None


def metadata(*rows: dict) -> pa.Table:
    good = {"age": 30, "gender": "female", "source": "table"}
    return pa.Table.from_pylist(
        [
            good | {"path": f"{number}.jpg", "source_row": number} | row
            for number, row in enumerate(rows)
        ],
        schema=COLUMNS,
    )


def found(*rows: dict | None) -> pa.Table:
    good = {"width": 200, "height": 100}
    nothing = dict.fromkeys(FOUND.names)
    return pa.Table.from_pylist(
        [
            nothing if row is None else {"source_row": number, "sha256": f"{number}"} | good | row
            for number, row in enumerate(rows)
        ],
        schema=FOUND,
    )


def rules(count: int, **dropped: int) -> pa.StringArray:
    names = {row: name for name, row in dropped.items()}
    return pa.array([names.get(row) for row in range(count)], pa.string())


def test_every_rule_in_its_turn() -> None:
    rows = metadata({"age": None}, {}, {}, {}, {}, {"age": 31}, {"age": 80}, {"age": 90}, {})
    images = found(
        None,
        None,
        {"width": None, "height": None, "error": "not an image", "rule": "unreadable_image"},
        {"width": 20, "height": 30, "rule": "too_small"},
        {"sha256": "same"},
        {"sha256": "same"},
        {"sha256": "other"},
        {"sha256": "other"},
        {},
    )
    judged = judge(rows, rules(9, impossible_age=0), images, SHARES)
    assert judged.schema == VERDICTS
    assert list(zip(judged["rule"].to_pylist(), judged["detail"].to_pylist(), strict=True)) == [
        ("impossible_age", "age unknown"),
        ("missing_image", None),
        ("unreadable_image", "not an image"),
        ("too_small", "width 20, height 30"),
        (KEPT, None),
        ("duplicate", "same_as_row 4"),
        ("duplicate_conflict", "same_as_row 6, age 80"),
        ("duplicate_conflict", "same_as_row 6, age 90"),
        (KEPT, None),
    ]
    splits = judged["split"].to_pylist()
    assert [split is None for split in splits] == [True] * 4 + [False] + [True] * 3 + [False]
    assert splits[4] == split_of("same")


def test_a_row_that_is_dropped_already_is_nobodys_duplicate() -> None:
    rows = metadata({"age": 150}, {}, {})
    images = found(None, {"sha256": "a"}, {"sha256": "a"})
    judged = judge(rows, rules(3, impossible_age=0), images, SHARES)
    assert judged["rule"].to_pylist() == ["impossible_age", KEPT, "duplicate"]


def test_a_person_is_in_one_split() -> None:
    people = [f"person {number % 50}" for number in range(500)]
    rows = metadata(*({"identity": person} for person in people))
    judged = judge(rows, rules(500), found(*[{}] * 500), SHARES)
    assert judged["split"].to_pylist() == [split_of(person) for person in people]
    assert set(judged["split"].to_pylist()) == {"train", "val", "test"}


def test_nothing_is_kept() -> None:
    judged = judge(metadata({}, {}), rules(2), found(None, None), SHARES)
    assert judged["rule"].to_pylist() == ["missing_image"] * 2
    assert judge(metadata(), rules(0), found(), SHARES).num_rows == 0


def test_metadata_alone() -> None:
    judged = judge_metadata(metadata({"gender": None}, {}), rules(2, unknown_gender=0))
    assert judged["rule"].to_pylist() == ["unknown_gender", KEPT]
    assert judged["detail"].to_pylist() == ["gender unknown", None]
