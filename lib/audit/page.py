"""The page of an audit: the most suspect faces of each kind with their pictures, in one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lib.audit.results import Audit, Row
from lib.audit.suspicion import KINDS, MEANINGS
from lib.images import ImageError, Limits, decode
from lib.report.gallery import Encoded, encode, shorten
from lib.report.page import render

PICTURES = 60
"""Of a kind: with `BYTES` it keeps the page below 4 MB."""
SIDE, BYTES = 200, 9_000
"""Longer side of a picture in pixels, and its encoded size at most."""
_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_USE = (
    "A suspect label is one that models contradict. The models may be the ones that are wrong: look at "
    "the picture before you change or drop a label.",
    "A gender here is how faces that look so are labelled in data sets of this kind. It is not who "
    "somebody is. An age is what a face looks like to the models, not a date of birth.",
    "This page holds pictures of people. Pass it on only to those who may see the faces themselves.",
)


@dataclass(frozen=True)
class Tile:
    """One face of the page.

    Attributes:
        picture: of it; None where it cannot be decoded.
        name: source and row.
        label: what the data set says.
        said: what the models say.
        suspicion: that a label is wrong, in percent.
    """

    picture: Encoded | None
    name: str
    label: str
    said: str
    suspicion: str


@dataclass(frozen=True)
class Kind:
    """A section of the page.

    Attributes:
        name: of `KINDS`.
        meaning: in words.
        count: faces of that kind.
        tiles: the most suspect ones.
    """

    name: str
    meaning: str
    count: int
    tiles: Sequence[Tile]


def html(audit: Audit, listed: Mapping[str, Sequence[Row]]) -> str:
    """The page.

    Args:
        audit: all that is known.
        listed: the most suspect faces of each kind, as `lib.audit.results.write_results` gives them.
    """
    shown = {kind: list(rows[:PICTURES]) for kind, rows in listed.items()}
    pictures = _pictures(audit, [row["place"] for rows in shown.values() for row in rows])
    counts = audit.counts()
    kinds = [
        Kind(kind, MEANINGS[kind], counts[kind], [_tile(row, pictures) for row in shown[kind]])
        for kind in KINDS
    ]
    return render(
        _TEMPLATE,
        None,
        title=shorten(str(audit.faces.folder), 120),
        faces=len(audit.labels),
        suspect=int(audit.suspicion.suspect.sum()),
        how=audit.how,
        models=[shorten(model) for model in audit.models],
        kinds=kinds,
        use=_USE,
    )


def _pictures(audit: Audit, places: Sequence[int]) -> dict[int, Encoded]:
    """Small pictures of the faces at some places; those that cannot be decoded are left out."""
    pictures = {}
    for rows in audit.faces.take(np.unique(np.array(places, np.int64)), ("image",)):
        for row in rows.to_pylist():
            try:
                picture = decode(row["image"] or b"", Limits(), at_least=SIDE)
            except ImageError:
                continue
            image = Image.fromarray(picture.pixels)
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            pictures[row["place"]] = encode(image, BYTES)
    return pictures


def _tile(row: Row, pictures: Mapping[int, Encoded]) -> Tile:
    said = []
    if row["predicted_age"] is not None:
        interval = f"{row['predicted_age_low']:.0f} to {row['predicted_age_high']:.0f}"
        said.append(f"{row['predicted_age']:.0f} years ({interval})")
    if row["predicted_gender"] is not None:
        said.append(f"{row['predicted_gender']} {row['predicted_gender_score']:.2f}")
    return Tile(
        picture=pictures.get(row["place"]),
        name=shorten(f"{row['source']}:{row['source_row']}", 80),
        label=" · ".join(filter(None, (_age(row), row["gender"] or ""))),
        said=" · ".join(said) or "nothing: the picture could not be labelled",
        suspicion=f"{row['suspicion']:.1%}",
    )


def _age(row: Row) -> str:
    if row["age"] is None:
        return ""
    low, high = row["age_low"], row["age_high"]
    return f"{low} years" if low == high else f"{low} to {high} years"
