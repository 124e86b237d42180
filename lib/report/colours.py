"""The colours of a report. Orange and blue differ for every kind of colour vision."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours on a light or on a dark page, as `#rrggbb`.

    Attributes:
        name: `light` or `dark`.
        ground: behind everything.
        paper: of the cards that charts and tables stand on.
        ink: of text.
        muted: of text that steps back.
        line: of grids and cards.
        edge: of what can be pressed.
        bar: of bars that something is drawn over.
        accent: of what a chart is about.
        female: of faces labelled so.
        male: of faces labelled so.
    """

    name: str
    ground: str
    paper: str
    ink: str
    muted: str
    line: str
    edge: str
    bar: str
    accent: str
    female: str
    male: str


LIGHT = Theme(
    "light",
    ground="#f5f6f9",
    paper="#ffffff",
    ink="#1c2330",
    muted="#5b6474",
    line="#e3e7ee",
    edge="#8b95a7",
    bar="#c3cbd8",
    accent="#3a5a98",
    female="#c2570c",
    male="#0e7490",
)
DARK = Theme(
    "dark",
    ground="#10141c",
    paper="#181d27",
    ink="#e8ebf1",
    muted="#9aa4b5",
    line="#2b3342",
    edge="#66728a",
    bar="#434d60",
    accent="#8fb0f0",
    female="#f59e5b",
    male="#4fb8d1",
)
