"""Ages as published data sets write them: bands such as (25, 32), 20-29 and more than 70, and numbers."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from lib.tasks.expectation import AGE_CLASSES

_BAND = re.compile(r"\(?\s*(?P<low>\d{1,3})\s*[-,]\s*(?P<high>\d{1,3})\s*\)?")
_OPEN = re.compile(r"more than (?P<low>\d{1,3})")
_NUMBER = re.compile(r"(?P<low>\d{1,3})")


class AgeTexts(NamedTuple):
    """Whole years, int16 (n,) each; null where there is no age.

    Attributes:
        age: the middle of the band, rounded down.
        age_low: the first year of the band.
        age_high: the last one.
    """

    age: pa.Int16Array
    age_low: pa.Int16Array
    age_high: pa.Int16Array


def read_ages(texts: Iterable[str | None]) -> AgeTexts:
    """Read ages; a number is a band of one year, and a band without an end ends at 100."""
    bands = [_band(text or "") for text in texts]
    lows, highs = ([None if band is None else band[end] for band in bands] for end in (0, 1))
    middles = [None if band is None else sum(band) // 2 for band in bands]
    return AgeTexts(*(pa.array(years, pa.int16()) for years in (middles, lows, highs)))


def _band(text: str) -> tuple[int, int] | None:
    for form in (_BAND, _OPEN, _NUMBER):
        if match := form.fullmatch(text.strip()):
            low = int(match["low"])
            ends = {_BAND: "high", _NUMBER: "low"}
            high = int(match[ends[form]]) if form in ends else AGE_CLASSES - 1
            return (low, high) if low <= high else None
    return None
