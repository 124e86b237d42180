import pyarrow as pa

from lib.datasets.cleaning import CLEANED, apply_metadata_rules, apply_rules
from lib.datasets.ingest import IMAGE_FACTS
from lib.datasets.labels import COLUMNS, SHARES, split_of

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


def image_facts(*rows: dict | None) -> pa.Table:
    good = {"width": 200, "height": 100}
    nothing = dict.fromkeys(IMAGE_FACTS.names)
    return pa.Table.from_pylist(
        [
            nothing if row is None else {"source_row": number, "sha256": f"{number}"} | good | row
            for number, row in enumerate(rows)
        ],
        schema=IMAGE_FACTS,
    )


def rules(count: int, **dropped: int) -> pa.StringArray:
    names = {row: name for name, row in dropped.items()}
    return pa.array([names.get(row) for row in range(count)], pa.string())


def test_rules_apply_in_order() -> None:
    rows = metadata({"age": None}, {}, {}, {}, {}, {"age": 31}, {"age": 80}, {"age": 90}, {})
    images = image_facts(
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
    cleaned = apply_rules(rows, rules(9, impossible_age=0), images, SHARES)
    assert cleaned.schema == CLEANED
    assert list(zip(cleaned["rule"].to_pylist(), cleaned["detail"].to_pylist(), strict=True)) == [
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
    splits = cleaned["split"].to_pylist()
    assert [split is None for split in splits] == [True] * 4 + [False] + [True] * 3 + [False]
    assert splits[4] == split_of("same")


def test_a_dropped_row_is_no_original_of_a_duplicate() -> None:
    rows = metadata({"age": 150}, {}, {})
    images = image_facts(None, {"sha256": "a"}, {"sha256": "a"})
    cleaned = apply_rules(rows, rules(3, impossible_age=0), images, SHARES)
    assert cleaned["rule"].to_pylist() == ["impossible_age", KEPT, "duplicate"]


def test_a_person_is_in_one_split() -> None:
    people = [f"person {number % 50}" for number in range(500)]
    rows = metadata(*({"identity": person} for person in people))
    cleaned = apply_rules(rows, rules(500), image_facts(*[{}] * 500), SHARES)
    assert cleaned["split"].to_pylist() == [split_of(person) for person in people]
    assert set(cleaned["split"].to_pylist()) == {"train", "val", "test"}


def test_nothing_is_kept() -> None:
    cleaned = apply_rules(metadata({}, {}), rules(2), image_facts(None, None), SHARES)
    assert cleaned["rule"].to_pylist() == ["missing_image"] * 2
    assert apply_rules(metadata(), rules(0), image_facts(), SHARES).num_rows == 0


def test_metadata_rules_alone() -> None:
    cleaned = apply_metadata_rules(metadata({"gender": None}, {}), rules(2, unknown_gender=0))
    assert cleaned["rule"].to_pylist() == ["unknown_gender", KEPT]
    assert cleaned["detail"].to_pylist() == ["gender unknown", None]
