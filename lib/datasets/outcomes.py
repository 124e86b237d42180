"""What becomes of every row of the metadata: a split, or the rule that drops it and why."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.datasets.ingest import MISSING_IMAGE
from lib.datasets.labels import COLUMNS, split_key, split_of
from lib.datasets.rules import (
    DUPLICATE,
    DUPLICATE_CONFLICT,
    IMAGE_RULES,
    METADATA_RULES,
    duplicate_rule,
)

VERDICTS = pa.schema(
    [
        *COLUMNS,
        ("width", pa.int32()),  # of the original image, upright, in pixels
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of the original bytes
        ("split", pa.string()),  # null: dropped
        ("rule", pa.string()),  # that drops the row; null: kept
        ("detail", pa.string()),  # what the rule saw, for people; null: nothing to add
    ]
)

_RULES = METADATA_RULES + IMAGE_RULES
_SAW = {rule.name: rule.columns for rule in _RULES if rule.name != MISSING_IMAGE} | {
    "unreadable_image": ("error",),
    DUPLICATE: ("same_as_row",),
    DUPLICATE_CONFLICT: ("same_as_row", "age"),
}
"""Rule → the columns that explain why it drops a row; of a missing image there is no more to say."""


def judge_metadata(rows: pa.Table, rule: pa.StringArray) -> pa.Table:
    """Put what the metadata rules say beside the rows.

    Args:
        rows: (n) with the columns of the source.
        rule: (n,) names of metadata rules; null: none applies.

    Returns:
        (n) the labelled columns, rule and detail.
    """
    judged = rows.append_column("rule", rule)
    return judged.append_column("detail", _details(judged)).select(
        [*COLUMNS.names, "rule", "detail"]
    )


def judge(
    rows: pa.Table, metadata_rule: pa.StringArray, found: pa.Table, shares: Sequence[float]
) -> pa.Table:
    """Decide about every row, once all that can be known of its image is known.

    Args:
        rows: (n) with the columns of the source, in its order.
        metadata_rule: (n,) names of the metadata rules that apply, null where none does.
        found: (n) with the columns `staging.FOUND`: the image of each row; all null where there is
            none.
        shares: of train, val and test.

    Returns:
        (n) with the schema `VERDICTS`.
    """
    missing = pc.if_else(pc.is_null(found["source_row"]), MISSING_IMAGE, None)
    rule = pc.coalesce(metadata_rule, found["rule"], missing).combine_chunks()
    left = np.flatnonzero(rule.is_null())
    sha256 = found["sha256"].combine_chunks()
    age = rows["age"].combine_chunks()
    rule = pc.replace_with_mask(
        rule, rule.is_null(), duplicate_rule(sha256.take(left), age.take(left))
    )
    judged = rows
    for name, column in [
        ("width", found["width"]),
        ("height", found["height"]),
        ("sha256", sha256),
        ("error", found["error"]),
        ("rule", rule),
        ("split", _splits(rule, rows["identity"], sha256, shares)),
        ("same_as_row", _first_rows(sha256, left)),
    ]:
        judged = judged.append_column(name, column)
    return judged.append_column("detail", _details(judged)).select(VERDICTS.names)


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


def _details(judged: pa.Table) -> pa.StringArray:
    """What each rule saw in the rows that it drops."""
    details = np.full(judged.num_rows, None, object)
    for rule, columns in _SAW.items():
        dropped = np.flatnonzero(pc.equal(judged["rule"], rule).fill_null(False))
        if len(dropped):
            details[dropped] = _texts(judged.select(columns).take(dropped))
    return pa.array(details, pa.string())


def _texts(table: pa.Table) -> list[str]:
    """Each row as `column value, column value`; an error says enough without the column's name."""
    values = [column.cast(pa.string()).fill_null("unknown") for column in table.columns]
    if table.column_names == ["error"]:
        return values[0].to_pylist()
    pairs = [
        pc.binary_join_element_wise(name, value, " ")
        for name, value in zip(table.column_names, values, strict=True)
    ]
    return pc.binary_join_element_wise(*pairs, ", ").to_pylist()
