"""Counts → charts: SVG pictures for light and dark pages, each with its numbers and a sentence.

matplotlib draws them, as it does the plots of an evaluation. A page shows an SVG as a picture, where it
can neither run nor load anything; so its styles need no exception from the page's security policy.
"""

import base64
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.stats import norm

from lib.report.colours import DARK, LIGHT, Theme
from lib.report.label_statistics import MOST_FACES, SCORE_BINS, Counts, LabelStatistics
from lib.tasks import TASKS
from lib.tasks.age import AGE, STD_STEP
from lib.tasks.age_bands import AGE_BANDS, age_band
from lib.tasks.expectation import AGE_CLASSES
from lib.tasks.gender import FEMALE, GENDERS, MALE
from lib.tasks.task import Histogram

PYRAMID_STEP = 5
"""Years of a bar of the pyramid."""

_FACE_SCORES = Histogram(
    "Face: confidence",
    np.linspace(0, 1, SCORE_BINS + 1),
    "{:.2f}",
    "{share:.0%} of the faces were found with a confidence of at least {edge}.",
    0.9,
)
_POINTS_PER_INCH = 72  # a point of an SVG is a pixel of the page
_TEXT = 12.5
_WIDE, _NARROW, _SMALL = (560, 330), (340, 330), (300, 190)
_FONTS = ["Segoe UI", "Helvetica Neue", "Roboto", "Arial", "Liberation Sans", "DejaVu Sans"]
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": _FONTS,
    "font.size": _TEXT,
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "report",  # the same counts, the same bytes
    "axes.unicode_minus": False,
}


class Table(NamedTuple):
    """The numbers of a chart: the names of the columns, and the rows."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Chart:
    """A chart as a page needs it.

    Attributes:
        title: what it shows.
        sentence: the same in words, for who cannot see it.
        table: the numbers.
        pictures: data URIs of SVGs by theme, `light` and `dark`.
        narrow: the same for narrow screens; empty where one picture suits all.
        note: how to read it.
    """

    title: str
    sentence: str
    table: Table
    pictures: dict[str, str]
    narrow: dict[str, str]
    note: str = ""


Draw = Callable[[Axes, Theme], None]


def age_pyramid(statistics: LabelStatistics) -> Chart:
    """Faces by age and gender."""
    bands = _in_steps(statistics.ages)
    by_gender = dict(zip(GENDERS, bands, strict=True))
    female, male = bands
    names = [_band_name(number) for number in range(len(female))]

    def draw(axes: Axes, theme: Theme) -> None:
        places = np.arange(len(names))
        most = max(1, bands.max())
        axes.barh(places, -female, 0.82, color=theme.female)
        axes.barh(places, male, 0.82, color=theme.male)
        axes.axvline(0, color=theme.paper, linewidth=1.5)
        axes.set(xlim=(-1.08 * most, 1.08 * most), ylim=(-0.7, len(names) - 0.3))
        axes.set_yticks(places[::2] - 0.5, [str(PYRAMID_STEP * n) for n in places[::2]])
        axes.set_ylabel("age, years")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, symmetric=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
        axes.grid(axis="x")
        for side, name, colour in ((0.0, FEMALE, theme.female), (1.0, MALE, theme.male)):
            axes.text(
                side,
                1.03,
                f"{name} {by_gender[name].sum():,}",
                transform=axes.transAxes,
                ha="left" if side == 0 else "right",
                color=colour,
                weight="bold",
            )

    total = bands.sum(axis=0)
    return Chart(
        "Age and gender",
        f"Of {_faces(statistics.faces)}, {female.sum():,} are labelled female and {male.sum():,} male; "
        f"the most, {total.max():,}, are {names[total.argmax()]} years old.",
        Table(
            (AGE.name, *GENDERS),
            [(n, f"{f:,}", f"{m:,}") for n, f, m in zip(names, female, male, strict=True)],
        ),
        _pictures(draw, _WIDE),
        _pictures(draw, _NARROW),
    )


def age_distribution(statistics: LabelStatistics) -> Chart:
    """Faces by age: as labelled, and with the uncertainty of each label."""
    labelled, spread = statistics.ages.sum(axis=0), spread_ages(statistics.age_and_std)
    years = np.arange(AGE_CLASSES)

    def draw(axes: Axes, theme: Theme) -> None:
        axes.bar(years + 0.5, labelled, 0.9, color=theme.bar, label="expected ages")
        axes.plot(years + 0.5, spread, color=theme.accent, linewidth=2.2, label="with uncertainty")
        axes.fill_between(years + 0.5, spread, color=theme.accent, alpha=0.12, linewidth=0)
        axes.set(xlim=(0, 101), ylim=(0, 1.08 * max(1, labelled.max())))
        axes.set_xlabel("age, years")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _thousands(axes)
        axes.grid(axis="y")
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False,
            labelcolor=theme.ink, borderpad=0, handlelength=1.4, columnspacing=1.4,
        )  # fmt: skip

    bands = age_band(years)
    rows = [
        (band, f"{labelled[bands == band].sum():,}", f"{spread[bands == band].sum():,.0f}")
        for band in AGE_BANDS
    ]
    return Chart(
        "Distribution of ages",
        f"The median of the ages is {_quantile(labelled, 0.5):.0f} years; half of the faces are between "
        f"{_quantile(labelled, 0.25):.0f} and {_quantile(labelled, 0.75):.0f}.",
        Table((AGE.name, "faces", "with uncertainty"), rows),
        _pictures(draw, _WIDE),
        _pictures(draw, _NARROW),
        note="The line spreads every face over the years that its label leaves open, as a normal "
        "distribution of its standard deviation. Where it lies above the bars, ages are likelier "
        "than the expected ones alone say.",
    )


def faces_per_image(statistics: LabelStatistics) -> Chart:
    """Images by the number of their faces."""
    counts = statistics.faces_per_image
    last = max(3, int(np.flatnonzero(counts).max(initial=0)))
    counts = counts[: last + 1]
    names = [f"{n}+" if n == MOST_FACES else str(n) for n in range(last + 1)]
    images = int(counts.sum())
    return Chart(
        "Faces in an image",
        f"{counts[0]:,} of {images:,} readable images show no face, {counts[1]:,} one face, "
        f"{counts[2:].sum():,} several.",
        Table(("faces", "images"), [(n, f"{c:,}") for n, c in zip(names, counts, strict=True)]),
        _pictures(_bars(names, counts), _SMALL),
        {},
    )


def confidence(statistics: LabelStatistics) -> list[Chart]:
    """How sure the labels are: of gender, of age, and of the face itself, if one was looked for."""
    charts = [
        _histogram(task.histogram, statistics.certainties[name]) for name, task in TASKS.items()
    ]
    if statistics.face_scores.any():
        charts.append(_histogram(_FACE_SCORES, statistics.face_scores))
    return charts


def spread_ages(age_and_std: Counts) -> np.ndarray:
    """Faces expected at each age, when each face counts as a normal distribution.

    Args:
        age_and_std: (101, 61) faces by age and standard deviation, as `LabelStatistics` has them.

    Returns:
        (101,) floats; the sum is the number of faces: what would lie outside of 0 to 100 years is
        shared out among the ages inside.
    """
    faces = np.zeros(AGE_CLASSES)
    edges = np.arange(AGE_CLASSES + 1)
    for age, step in np.argwhere(age_and_std):
        below = norm.cdf(edges, age + 0.5, max(STD_STEP / 2, step * STD_STEP))
        faces += age_and_std[age, step] * np.diff(below) / (below[-1] - below[0])
    return faces


def _histogram(histogram: Histogram, counts: Counts) -> Chart:
    """A chart of many narrow bars; its table has a fifth of them."""
    title, edges, number, sentence, edge = histogram

    def draw(axes: Axes, theme: Theme) -> None:
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.88, align="edge", color=theme.accent)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * max(1, counts.max())))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        _thousands(axes)
        axes.grid(axis="y")

    starts = range(0, len(counts), 5)
    rows = [
        (
            f"{number.format(edges[start])} to {number.format(edges[min(start + 5, len(counts))])}",
            f"{counts[start : start + 5].sum():,}",
        )
        for start in starts
    ]
    share = counts[edges[:-1] >= edge - 1e-9].sum() / max(1, counts.sum())
    return Chart(
        title,
        sentence.format(share=share, edge=edge),
        Table((title.lower(), "faces"), rows),
        _pictures(draw, _SMALL),
        {},
    )


def _bars(names: Sequence[str], counts: Counts) -> Draw:
    def draw(axes: Axes, theme: Theme) -> None:
        places = np.arange(len(names))
        axes.bar(places, counts, 0.72, color=theme.accent)
        axes.set(ylim=(0, 1.08 * max(1, counts.max())))
        axes.set_xticks(places, names)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        _thousands(axes)
        axes.grid(axis="y")

    return draw


def _pictures(draw: Draw, size: tuple[int, int]) -> dict[str, str]:
    return {theme.name: _data_uri(_svg(draw, size, theme)) for theme in (LIGHT, DARK)}


def _svg(draw: Draw, size: tuple[int, int], theme: Theme) -> bytes:
    with _styled(theme):
        width, height = (side / _POINTS_PER_INCH for side in size)
        figure = Figure((width, height), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.spines[:].set_visible(False)
        draw(axes, theme)
        buffer = io.BytesIO()
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


@contextmanager
def _styled(theme: Theme) -> Iterator[None]:
    colours: dict[Any, Any] = {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.labelcolor": theme.muted,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "text.color": theme.ink,
        "grid.color": theme.line,
        "grid.linewidth": 0.8,
    }
    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    fonts.setLevel(
        logging.ERROR
    )  # most of the fonts are for the reader's machine, not for this one
    try:
        with matplotlib.rc_context(_STYLE | colours):
            yield
    finally:
        fonts.setLevel(level)


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _thousands(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _in_steps(ages: Counts) -> Counts:
    """(2, 101) faces by year → (2, 20) by bands of `PYRAMID_STEP` years; 100 goes with 95 to 99."""
    bands = ages[:, : AGE_CLASSES - 1].reshape(len(ages), -1, PYRAMID_STEP).sum(axis=2)
    bands[:, -1] += ages[:, -1]
    return bands


def _band_name(number: int) -> str:
    start = number * PYRAMID_STEP
    end = start + PYRAMID_STEP - 1
    return f"{start} to {100 if end == 99 else end}"


def _quantile(counts: Counts, share: float) -> float:
    """The first bin up to which that share of all lies."""
    return float(np.searchsorted(np.cumsum(counts), share * counts.sum()))


def _faces(count: int) -> str:
    return f"{count:,} face{'' if count == 1 else 's'}"
