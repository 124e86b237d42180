"""The pictures of an evaluation. Each function draws one figure; `save` writes it."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from lib.tasks.age_bands import AGE_BANDS, age_band
from lib.tasks.binary import calibration_error, reliability, roc_auc
from lib.tasks.task import Floats, Mask

_INK, _FAINT, _EMPTY = "#263238", "#b0bec5", "#eceff1"
_ACCENT, _LIGHT_ACCENT = "#00695c", "#b2dfdb"
_COLOURS = "viridis"
_MAX_AGE = 100  # years


def true_against_predicted(true_age: Floats, age: Floats) -> Figure:
    """Draw how many faces there are at each pair of true and predicted age.

    Args:
        true_age: (n,) in years; NaN: left out.
        age: (n,) predictions in years; NaN: left out.
    """
    known = ~np.isnan(true_age) & ~np.isnan(age)
    figure, axes = _figure("Predicted against true age", "true age, years", "predicted age, years")
    edges = np.arange(-0.5, _MAX_AGE + 1.5, 2)
    counts, _, _ = np.histogram2d(true_age[known], age[known], bins=(edges, edges))
    image = axes.pcolormesh(
        edges,
        edges,
        np.ma.masked_equal(counts.T, 0),
        cmap=_COLOURS,
        norm=LogNorm(vmin=1, vmax=max(2, counts.max())),
        rasterized=True,  # thousands of rectangles make an SVG heavy
    )
    figure.colorbar(image, ax=axes, label="faces", format="{x:g}")
    axes.plot([0, _MAX_AGE], [0, _MAX_AGE], color=_INK, linewidth=1, linestyle="--")
    axes.set(xlim=(0, _MAX_AGE), ylim=(0, _MAX_AGE), aspect="equal")
    return figure


def error_by_age_band(true_age: Floats, age: Floats) -> Figure:
    """Draw the spread of the errors in each band: quartiles, and 5% and 95% as whiskers.

    Args:
        true_age, age: as for `true_against_predicted`.
    """
    known = ~np.isnan(true_age) & ~np.isnan(age)
    error, bands = (age - true_age)[known], age_band(true_age[known])
    errors = [error[bands == band] for band in AGE_BANDS]
    figure, axes = _figure("Error by age", "true age, years", "predicted minus true age, years")
    axes.axhline(0, color=_FAINT, linewidth=1)
    axes.boxplot(
        errors,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        widths=0.6,
        boxprops={"facecolor": _LIGHT_ACCENT, "edgecolor": _ACCENT},
        medianprops={"color": _ACCENT, "linewidth": 2},
        whiskerprops={"color": _ACCENT},
        capprops={"color": _ACCENT},
        tick_labels=[f"{band}\nn = {len(e)}" for band, e in zip(AGE_BANDS, errors, strict=True)],
    )
    axes.tick_params(axis="x", labelsize=8)
    return figure


def gender_roc(is_female: Mask, female: Floats) -> Figure:
    """Draw the ROC curve of female.

    Args:
        is_female: (n,) bool.
        female: (n,) probabilities of female.
    """
    area = roc_auc(is_female, female)
    figure, axes = _figure("Gender: ROC curve of female", "men called women", "women called women")
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--")
    if area is None:
        label, false_positives, true_positives = "undefined: one gender only", [], []
    else:
        label = f"area {area:.4f}"
        false_positives, true_positives, _ = roc_curve(is_female, female, drop_intermediate=False)
    axes.plot(false_positives, true_positives, color=_ACCENT, linewidth=2, label=label)
    axes.legend(loc="lower right", frameon=False)
    _unit_square(axes)
    return figure


def gender_reliability(is_female: Mask, female: Floats) -> Figure:
    """Draw the observed share of women against the predicted probability, and where faces lie.

    Args:
        is_female, female: as for `gender_roc`.
    """
    bins, error = reliability(is_female, female), calibration_error(is_female, female)
    title = "Gender: reliability" + ("" if error is None else f" (calibration error {error:.4f})")
    figure, axes = _figure(title, "predicted probability of female", "observed share of women")
    share = bins.faces / max(1, bins.faces.sum())
    edges = np.linspace(0, 1, len(share) + 1)
    axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=_EMPTY, label="share of faces")
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--", label="ideal")
    filled = bins.faces > 0
    axes.plot(
        bins.predicted[filled],
        bins.observed[filled],
        color=_ACCENT,
        linewidth=2,
        marker="o",
        label="observed",
    )
    axes.legend(loc="upper left", frameon=False)
    _unit_square(axes)
    return figure


def class_separation(distributions: Floats) -> Figure:
    """Draw the mean predicted distribution for each true age.

    Args:
        distributions: (101, 101) from `mean_distributions`: row a for the true age a, NaN where
            there is none.
    """
    figure, axes = _figure(
        "Mean predicted distribution for each true age", "predicted class, years", "true age, years"
    )
    known = np.ma.masked_invalid(distributions)
    image = axes.imshow(
        known,
        cmap=_COLOURS,
        origin="lower",
        interpolation="nearest",
        norm=PowerNorm(0.5, vmin=0, vmax=known.max() if known.count() else 1),
    )
    figure.colorbar(image, ax=axes, label="mean probability, on a square root scale")
    axes.plot([0, _MAX_AGE], [0, _MAX_AGE], color="white", linewidth=0.8, linestyle="--", alpha=0.7)
    axes.set_facecolor(_EMPTY)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write the figure as NAME.png and NAME.svg.

    Args:
        figure: to write.
        folder: is made if need be.
        name: without an ending.

    Returns:
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, color=_INK, fontsize=13, pad=12)
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.tick_params(colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
