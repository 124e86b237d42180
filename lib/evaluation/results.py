"""What an evaluation leaves behind: metrics.json, metrics.txt and plots/."""

import json
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.datasets.labels import GENDERS
from lib.evaluation import plots
from lib.evaluation.comparison import Comparison
from lib.evaluation.metrics import Metrics, Predictions, as_table, evaluate, mean_distributions
from lib.evaluation.predictions import age_distributions, predictions_of
from lib.output.summary import PACKAGES

METRICS, TABLE, PLOTS = "metrics.json", "metrics.txt", "plots"
EXAMPLES = 20
"""Faces without a label that are named; all of them are counted."""
SEPARATION = "class_separation"


def write_evaluation(comparison: Comparison, output: Path) -> str:
    """Compute all figures and write them, over those of an earlier evaluation in the same folder.

    Args:
        comparison: of at least one face.
        output: folder; made if it does not exist.

    Returns:
        The table to read, as it is in metrics.txt.

    Raises:
        OSError: the folder cannot be written to.
    """
    predictions = predictions_of(comparison)
    distributions = age_distributions(comparison.labels)
    figures = all_figures(comparison, predictions)
    table = readable(figures)
    plot_folder = output / PLOTS
    for stale in plot_folder.glob(f"{SEPARATION}.*"):
        stale.unlink()
    for name, picture in pictures(predictions, distributions):
        plots.save(picture, plot_folder, name)
    (output / TABLE).write_text(table + "\n", "utf-8")
    (output / METRICS).write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return table


def all_figures(comparison: Comparison, predictions: Predictions) -> Metrics:
    """What was evaluated, with which software, and what `lib.evaluation.metrics.evaluate` gives."""
    without = comparison.without_label()
    return {
        "evaluated": dict(comparison.about),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "statuses": comparison.statuses(),
        "without_label": {"count": len(without), "examples": without[:EXAMPLES]},
        **evaluate(predictions),
    }


def readable(figures: Metrics) -> str:
    """The same as text."""
    about = [f"{name.replace('_', ' ')}: {value}" for name, value in figures["evaluated"].items()]
    statuses = " · ".join(f"{count:,} {name}" for name, count in figures["statuses"].items())
    without = [f"  {face}" for face in figures["without_label"]["examples"]]
    if figures["age_argmax"] is None:
        without.append(
            f"no age distributions, hence no arg max and no plot {SEPARATION}; "
            "jobs.score --age-distribution writes them"
        )
    return "\n".join([*about, f"faces: {statuses}", *without, "", as_table(figures)])


def pictures(
    predictions: Predictions, distributions: NDArray[np.float32] | None
) -> Iterator[tuple[str, Figure]]:
    """Draw all plots that can be drawn, each with its name; class separation needs distributions."""
    p = predictions
    yield "true_against_predicted", plots.true_against_predicted(p.true_age, p.age)
    yield "error_by_age_band", plots.error_by_age_band(p.true_age, p.age)
    known = np.isin(p.true_gender, GENDERS) & ~np.isnan(p.female)
    is_female, female = (p.true_gender == "female")[known], p.female[known]
    yield "gender_roc", plots.gender_roc(is_female, female)
    yield "gender_reliability", plots.gender_reliability(is_female, female)
    if distributions is not None:
        given = ~np.isnan(distributions[:, 0])
        # An age with a fraction, as the mean of what people said is, counts for the nearest class.
        nearest = np.rint(p.true_age[given])
        means = mean_distributions(nearest, distributions[given].astype(np.float64))
        yield SEPARATION, plots.class_separation(means)
