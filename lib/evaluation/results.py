"""What an evaluation leaves behind: metrics.json, metrics.txt and plots/."""

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lib.evaluation.comparison import Comparison
from lib.evaluation.honesty import honesty
from lib.evaluation.metrics import AllPredictions, evaluate
from lib.evaluation.text_table import as_table
from lib.output.summary import PACKAGES
from lib.tasks import TASKS, plots
from lib.tasks.age import CLASS_SEPARATION
from lib.tasks.task import Metrics
from lib.tasks.under_age import OperatingPoint

METRICS, TABLE, PLOTS = "metrics.json", "metrics.txt", "plots"
EXAMPLES = 20
"""Faces without a label that are named; all of them are counted."""


def write_evaluation(
    comparison: Comparison, output: Path, points: Sequence[OperatingPoint] = ()
) -> str:
    """Compute all figures and write them, over those of an earlier evaluation in the same folder.

    Args:
        comparison: of at least one face.
        output: folder; made if it does not exist.
        points: operating points of the model's card.

    Returns:
        The table to read, as it is in metrics.txt.

    Raises:
        OSError: the folder cannot be written to.
    """
    predictions = AllPredictions.of(comparison)
    figures = all_figures(comparison, predictions) | honesty(comparison, points)
    table = readable(figures)
    plot_folder = output / PLOTS
    for stale in plot_folder.glob(f"{CLASS_SEPARATION}.*"):
        stale.unlink()
    for name, of_task in predictions.tasks.items():
        for plot, figure in TASKS[name].plots(of_task, comparison.labels):
            plots.save(figure, plot_folder, plot)
    (output / TABLE).write_text(table + "\n", "utf-8")
    (output / METRICS).write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return table


def all_figures(comparison: Comparison, predictions: AllPredictions) -> Metrics:
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
            f"no age distributions, hence no arg max and no plot {CLASS_SEPARATION}; "
            "jobs.score --age-distribution writes them"
        )
    return "\n".join([*about, f"faces: {statuses}", *without, "", as_table(figures)])
