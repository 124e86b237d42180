"""The cleaning rules in their order: the first one that applies drops a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.datasets.labels import BOX

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Thresholds:
    """Limits of the cleaning rules."""

    min_face_score: float = 1.0
    """Detector score of the face, where the source has one."""
    max_second_face_score: float = 0.0
    """Highest detector score of a second face."""
    min_age: int = 0
    """In years."""
    max_age: int = 100
    """In years."""
    min_size: int = 32
    """Shorter side of the image, or of the face's box, in pixels."""


@dataclass(frozen=True)
class Rule:
    """One reason to drop a row."""

    name: str
    reason: str
    columns: tuple[str, ...]
    """Input of the rule; it does not apply to tables without one of them."""
    drops: Callable[[pa.Table, Thresholds], Mask]


def _no_face(table: pa.Table, limits: Thresholds) -> Mask:
    return ~(_floats(table, "face_score") > -np.inf)  # NaN is no face either


def _low_face_score(table: pa.Table, limits: Thresholds) -> Mask:
    return ~(_floats(table, "face_score") >= limits.min_face_score)


def _second_face(table: pa.Table, limits: Thresholds) -> Mask:
    return _floats(table, "second_face_score") > limits.max_second_face_score


def _no_box(table: pa.Table, limits: Thresholds) -> Mask:
    x0, y0, x1, y1 = (_floats(table, name) for name in BOX.names)
    return ~((x0 < x1) & (y0 < y1))


def _unknown_gender(table: pa.Table, limits: Thresholds) -> Mask:
    return _nulls(table, "gender")


def _impossible_age(table: pa.Table, limits: Thresholds) -> Mask:
    age = _floats(table, "age")
    return ~((age >= limits.min_age) & (age <= limits.max_age))


def _missing_image(table: pa.Table, limits: Thresholds) -> Mask:
    return _nulls(table, "sha256")


def _unreadable_image(table: pa.Table, limits: Thresholds) -> Mask:
    return _nulls(table, "width") | _nulls(table, "height")


def _box_outside(table: pa.Table, limits: Thresholds) -> Mask:
    return (_floats(table, "width") == 0) | (_floats(table, "height") == 0)


def _too_small(table: pa.Table, limits: Thresholds) -> Mask:
    shorter = np.minimum(_floats(table, "width"), _floats(table, "height"))
    return ~(shorter >= limits.min_size)


METADATA_RULES = (
    Rule("no_face", "the detector found no face", ("face_score",), _no_face),
    Rule("low_face_score", "the face scores below the minimum", ("face_score",), _low_face_score),
    Rule(
        "second_face",
        "a second face scores above the maximum",
        ("second_face_score",),
        _second_face,
    ),
    Rule("no_box", "no box of the face, or one without an area", tuple(BOX.names), _no_box),
    Rule("unknown_gender", "neither female nor male", ("gender",), _unknown_gender),
    Rule("impossible_age", "no age, or one outside the limits", ("age",), _impossible_age),
)
"""Rules that need the metadata only."""

IMAGE_RULES = (
    Rule("missing_image", "there is no such image", ("sha256",), _missing_image),
    Rule("unreadable_image", "the bytes are no image", ("width", "height"), _unreadable_image),
    Rule("box_outside", "the box lies outside the image", ("width", "height"), _box_outside),
    Rule("too_small", "the shorter side is below the minimum", ("width", "height"), _too_small),
)
"""Rules that need the image: a missing image has no sha256, an unreadable one no size."""

DUPLICATE = "duplicate"
DUPLICATE_CONFLICT = "duplicate_conflict"
MAX_AGE_GAP = 1
"""Years by which the ages of copies of an image may differ; with more, all copies are dropped."""

REASONS = {rule.name: rule.reason for rule in METADATA_RULES + IMAGE_RULES} | {
    DUPLICATE: "the same bytes as a row before it",
    DUPLICATE_CONFLICT: f"the same bytes under ages more than {MAX_AGE_GAP} year apart",
}
"""Every rule by name, in their order, and why it drops a row."""


def first_rule(
    table: pa.Table, thresholds: Thresholds, rules: Sequence[Rule] = METADATA_RULES
) -> pa.StringArray:
    """Name the first rule that drops each row.

    Args:
        table: n rows with some of the columns that the rules look at.
        thresholds: the limits.
        rules: to apply, in this order.

    Returns:
        (n,) names of rules; null: no rule drops the row.
    """
    choice = np.full(table.num_rows, -1)
    for index, rule in enumerate(rules):
        if set(rule.columns) <= set(table.column_names):
            choice[(choice < 0) & rule.drops(table, thresholds)] = index
    names = pa.array([rule.name for rule in rules], pa.string())
    return names.take(pa.array(choice, mask=choice < 0))


def duplicate_rule(sha256: pa.StringArray, age: pa.Int16Array) -> pa.StringArray:
    """Name the rule that drops each copy of an image that is there more than once.

    Args:
        sha256: (n,) digests of the images that no other rule drops, in the order of the source.
        age: (n,) their ages in years, none of them null.

    Returns:
        (n,) `DUPLICATE` for all copies but the first; `DUPLICATE_CONFLICT` for all copies, the
        first too, where their ages lie more than `MAX_AGE_GAP` apart; null for the rest.
    """
    _, first, image = np.unique(
        sha256.dictionary_encode().indices.to_numpy(), return_index=True, return_inverse=True
    )
    years = np.asarray(age, np.float64)
    youngest = np.full(len(first), np.inf)
    oldest = np.full(len(first), -np.inf)
    np.minimum.at(youngest, image, years)
    np.maximum.at(oldest, image, years)
    conflict = (oldest - youngest > MAX_AGE_GAP)[image]
    repeated = first[image] != np.arange(len(years))
    return pa.array(
        np.where(conflict, DUPLICATE_CONFLICT, DUPLICATE), pa.string(), mask=~(conflict | repeated)
    )


def _floats(table: pa.Table, column: str) -> NDArray[np.float64]:
    """A column of numbers, its nulls as NaN."""
    return table[column].cast(pa.float64()).to_numpy()


def _nulls(table: pa.Table, column: str) -> Mask:
    return table[column].is_null().to_numpy()
