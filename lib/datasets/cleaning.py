"""The cleaning of the metadata: every row gets a split, or the rule that drops it and why."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.datasets.ingest import MISSING_IMAGE
from lib.datasets.labels import LABELS, split_key, split_of, with_age_band
from lib.datasets.rules import (
    DUPLICATE,
    DUPLICATE_CONFLICT,
    IMAGE_RULES,
    METADATA_RULES,
    duplicate_rule,
)

CLEANED = pa.schema(
    [
        *LABELS,
        ("width", pa.int32()),  # of the original image, or of the face's box, upright, in pixels
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of the original bytes, with the box where there is one
        ("split", pa.string()),  # null: dropped
        ("rule", pa.string()),  # that drops the row; null: kept
        ("detail", pa.string()),  # the values that the rule compared, for people; null: none
    ]
)

_RULES = METADATA_RULES + IMAGE_RULES
_EXPLAINED_BY = {rule.name: rule.columns for rule in _RULES if rule.name != MISSING_IMAGE} | {
    "unreadable_image": ("error",),
    DUPLICATE: ("same_as_row",),
    DUPLICATE_CONFLICT: ("same_as_row", "age"),
}
"""Rule → the columns whose values explain why it drops a row; a missing image has none."""


def apply_metadata_rules(rows: pa.Table, rule: pa.StringArray) -> pa.Table:
    """Add the results of the metadata rules to the rows.

    Args:
        rows: (n) with the columns of the source.
        rule: (n,) names of metadata rules; null: none applies.

    Returns:
        (n) the labelled columns, rule and detail.
    """
    cleaned = with_age_band(rows).append_column("rule", rule)
    return cleaned.append_column("detail", _details(cleaned)).select(
        [*LABELS.names, "rule", "detail"]
    )


def apply_rules(
    rows: pa.Table, metadata_rule: pa.StringArray, images: pa.Table, shares: Sequence[float]
) -> pa.Table:
    """Apply all rules to every row, given the facts about its image.

    Args:
        rows: (n) with the columns of the source, in its order.
        metadata_rule: (n,) names of the metadata rules that apply, null where none does.
        images: (n) with the schema `ingest.IMAGE_FACTS`: the image of each row; all null where there
            is none.
        shares: of train, val and test.

    Returns:
        (n) with the schema `CLEANED`.
    """
    missing = pc.if_else(pc.is_null(images["source_row"]), MISSING_IMAGE, None)
    rule = pc.coalesce(metadata_rule, images["rule"], missing).combine_chunks()
    left = np.flatnonzero(rule.is_null())
    sha256 = images["sha256"].combine_chunks()
    age = rows["age"].combine_chunks()
    rule = pc.replace_with_mask(
        rule, rule.is_null(), duplicate_rule(sha256.take(left), age.take(left))
    )
    cleaned = with_age_band(rows)
    for name, column in [
        ("width", images["width"]),
        ("height", images["height"]),
        ("sha256", sha256),
        ("error", images["error"]),
        ("rule", rule),
        ("split", _splits(rule, rows["identity"], sha256, shares)),
        ("same_as_row", _first_rows(sha256, left)),
    ]:
        cleaned = cleaned.append_column(name, column)
    return cleaned.append_column("detail", _details(cleaned)).select(CLEANED.names)


def _splits(
    rule: pa.StringArray, identity: pa.ChunkedArray, sha256: pa.StringArray, shares: Sequence[float]
) -> pa.StringArray:
    columns = zip(rule.to_pylist(), identity.to_pylist(), sha256.to_pylist(), strict=True)
    return pa.array(
        [split_of(split_key(i, s), shares) if r is None else None for r, i, s in columns],
        pa.string(),
    )


def _first_rows(sha256: pa.StringArray, left: NDArray[np.int64]) -> pa.Int64Array:
    """For each of the rows `left`, the first of them with the same image; null for all others."""
    codes = sha256.take(left).dictionary_encode().indices.to_numpy()
    _, first, image = np.unique(codes, return_index=True, return_inverse=True)
    rows = np.full(len(sha256), -1)
    rows[left] = left[first[image]]
    return pa.array(rows, mask=rows < 0)


def _details(cleaned: pa.Table) -> pa.StringArray:
    """The values for which each rule drops its rows."""
    details = np.full(cleaned.num_rows, None, object)
    for rule, columns in _EXPLAINED_BY.items():
        dropped = np.flatnonzero(pc.equal(cleaned["rule"], rule).fill_null(False))
        if len(dropped):
            details[dropped] = _texts(cleaned.select(columns).take(dropped))
    return pa.array(details, pa.string())


def _texts(table: pa.Table) -> list[str]:
    """Each row as `column value, column value`; an error without the column's name."""
    values = [column.cast(pa.string()).fill_null("unknown") for column in table.columns]
    if table.column_names == ["error"]:
        return values[0].to_pylist()
    pairs = [
        pc.binary_join_element_wise(name, value, " ")
        for name, value in zip(table.column_names, values, strict=True)
    ]
    return pc.binary_join_element_wise(*pairs, ", ").to_pylist()
