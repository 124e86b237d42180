import math
from collections import Counter

import pyarrow as pa
import pytest

from lib.common.errors import UserError
from lib.datasets.labels import (
    SPLITS,
    Split,
    as_age,
    gender_of_codes,
    gender_of_words,
    split_key,
    split_of,
)
from lib.tasks.gender import Gender


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        ("female", ["female", "male", None, None, None]),
        ("male", ["male", "female", None, None, None]),
    ],
)
def test_codes(zero: Gender, expected: list[Gender | None]) -> None:
    assert gender_of_codes([0, 1, math.nan, 2, -1], zero).to_pylist() == expected


def test_words() -> None:
    words = ["Female", "F", " woman ", "MALE", "m", "Man", "0", "", "nan", None]
    expected = ["female"] * 3 + ["male"] * 3 + [None] * 4
    assert gender_of_words(pa.chunked_array([words])).to_pylist() == expected


def test_ages_are_whole_years_or_null() -> None:
    values = [0, 25.9, -0.5, math.nan, math.inf, -math.inf, 40_000]
    assert as_age(values).to_pylist() == [0, 25, -1, None, None, None, None]


def test_key_is_the_person_where_known() -> None:
    assert split_key("nm0000001", "ab12") == "nm0000001"
    assert split_key(None, "ab12") == "ab12"


@pytest.mark.parametrize(("key", "split"), [("a", "train"), ("g", "val"), ("p1", "test")])
def test_splits_are_the_same_on_every_machine(key: str, split: Split) -> None:
    assert split_of(key) == split


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (0.0, 0.0, 1.0)])
def test_shares_are_kept(shares: tuple[float, ...]) -> None:
    counts = Counter(split_of(f"key {i}", shares) for i in range(20_000))
    for split, share in zip(SPLITS, shares, strict=True):
        assert counts[split] / 20_000 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.8, 0.3, -0.1), (0.5, 0.1, 0.1)])
def test_bad_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="add up to 1"):
        split_of("key", shares)
