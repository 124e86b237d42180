"""The columns of every data set, the conversion of genders and ages, and the split of a face."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from lib.common.errors import UserError
from lib.tasks.gender import Gender

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = (0.8, 0.1, 0.1)

COLUMNS = pa.schema(
    [
        ("path", pa.string()),  # of the image, relative to the folder or tar that holds the images
        ("age", pa.int16()),  # whole years as the source has them; null: no such age can be told
        ("gender", pa.string()),  # "female" or "male"; null: unknown
        ("identity", pa.string()),  # the same for all images of a person; null: the source has none
        ("group", pa.string()),  # for subgroup evaluation only, never a training target
        ("source", pa.string()),  # the data set
        ("source_row", pa.int64()),  # 0-based, in the order of the source
    ]
)
"""The labelled columns. A data set may add columns of its own behind these."""
AGE_BAND = pa.schema(
    [
        ("age_low", pa.int16()),  # the first whole year that the age may be
        ("age_high", pa.int16()),  # the last one
    ]
)
"""Columns of a data set whose ages are bands; its `age` is the middle of the band."""
BOX = pa.schema([(name, pa.float64()) for name in ("x0", "y0", "x1", "y1")])
"""Columns of a data set that gives the boxes of its faces, in pixels; null: the row has no box."""
LABELS = pa.schema([*COLUMNS, *AGE_BAND])
"""The labelled columns with the ends of the age's band, which are the age itself where it is exact."""

_WORDS: dict[str, Gender] = {
    "female": "female",
    "f": "female",
    "woman": "female",
    "male": "male",
    "m": "male",
    "man": "male",
}


def gender_of_codes(codes: ArrayLike, zero: Gender) -> pa.StringArray:
    """Convert the numbers 0 and 1 to words.

    Args:
        codes: (n,) numbers of any kind; NaN and everything that is not 0 or 1 means unknown.
        zero: what 0 stands for: "female" in IMDB-WIKI, "male" in UTKFace.

    Returns:
        (n,) strings: "female", "male", or null where unknown.
    """
    values = np.asarray(codes, np.float64)
    female = values == (0 if zero == "female" else 1)
    known = (values == 0) | (values == 1)
    return pa.array(np.where(female, "female", "male"), pa.string(), mask=~known)


def gender_of_words(words: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert female, male, f, m, woman and man, in any case; null for every other word.

    Args:
        words: (n,) strings or nulls.

    Returns:
        (n,) strings: "female", "male", or null where unknown.
    """
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(words))
    return pa.array(list(_WORDS.values())).take(pc.index_in(plain, pa.array(list(_WORDS))))


def as_age(values: ArrayLike) -> pa.Int16Array:
    """Round ages in years down to whole ones.

    Args:
        values: (n,) float64 years; NaN, infinities and what int16 cannot hold count as no age.

    Returns:
        (n,) int16, null where there is no age.
    """
    years = np.floor(np.asarray(values, np.float64))
    limits = np.iinfo(np.int16)
    known = (years >= limits.min) & (years <= limits.max)
    return pa.array(np.where(known, years, 0).astype(np.int16), mask=~known)


def labelled_rows(
    source: str, columns: Mapping[str, Any], own: Iterable[pa.Field] = ()
) -> pa.Table:
    """Build the rows of a data set.

    Args:
        source: name of the data set.
        columns: (n,) each, by name; `path` and those of the other columns that the data set has.
        own: fields of the columns that stand behind `COLUMNS`.

    Returns:
        (n) rows with the schema `COLUMNS` and the own fields; columns that are not given are null.
    """
    count = len(columns["path"])
    given = {"source": [source] * count, "source_row": range(count), **columns}
    schema = pa.schema([*COLUMNS, *own])
    return pa.table(
        {field.name: given.get(field.name, pa.nulls(count, field.type)) for field in schema},
        schema=schema,
    )


def with_age_band(rows: pa.Table) -> pa.Table:
    """Complete the columns `AGE_BAND`: where a data set has none, its ages are exact."""
    missing = [name for name in AGE_BAND.names if name not in rows.column_names]
    for name in missing:
        rows = rows.append_column(AGE_BAND.field(name), rows["age"])
    return rows


def split_key(identity: str | None, sha256: str) -> str:
    """The key of the split of a face: the person if known, else the bytes of the image.

    Args:
        identity: of the person, or None.
        sha256: hexadecimal digest of the image's encoded bytes as the source has them.
    """
    return identity if identity is not None else sha256


def split_of(key: str, shares: Sequence[float] = SHARES) -> Split:
    """The split of a face, from its key alone, so that new faces move no others.

    Args:
        key: from `split_key`.
        shares: of train, val and test; they add up to 1.

    Raises:
        UserError: the shares are not three numbers of at least 0 that add up to 1.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"the shares of {', '.join(SPLITS)} must be three numbers of at least 0 that add up "
            f"to 1, not {tuple(shares)}"
        )
    train, val, _ = shares
    fraction = _fraction(key)
    if fraction < train:
        return "train"
    return "val" if fraction < train + val else "test"


def _fraction(key: str) -> float:
    """Hash a key to a number in [0, 1). 48 bits: a float holds them exactly, so never 1.0."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
