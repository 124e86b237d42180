"""The figures of an evaluation as text to read in a terminal."""

import pandas as pd

from lib.models.certainty import CERTAINTY_FIGURES, certainty_table
from lib.tasks import GROUPS, TASKS
from lib.tasks.task import Metrics, TextTable, figure_text
from lib.tasks.under_age import UNDER_FIGURES, under_age_tables


def as_table(metrics: Metrics) -> str:
    """Lay out what `lib.evaluation.metrics.evaluate` and `lib.evaluation.honesty.honesty` return."""
    tables = [table for task in TASKS.values() for table in task.tables(metrics)]
    if UNDER_FIGURES in metrics:
        tables += under_age_tables(metrics[UNDER_FIGURES])
    if CERTAINTY_FIGURES in metrics:
        tables.append(certainty_table(metrics[CERTAINTY_FIGURES]))
    for title, key in GROUPS.items():
        if metrics[key]:
            tables.append(_breakdown_table(f"by {title}", metrics[key]))
    return "\n\n".join(_aligned(table) for table in tables)


def _breakdown_table(title: str, breakdown: Metrics) -> TextTable:
    columns = [
        (heading, name, key)
        for name, task in TASKS.items()
        for heading, key in task.group_figures.items()
    ]
    rows = [
        (
            group,
            str(part["count"]),
            *(figure_text(key, part[of].get(key)) for _, of, key in columns),
        )
        for group, part in breakdown.items()
    ]
    return TextTable((title, "faces", *(heading for heading, _, _ in columns)), rows)


def _aligned(table: TextTable) -> str:
    """Columns of equal width, the first one aligned to the left and the others to the right."""
    first, *others = table.columns
    names = [row[0] for row in table.rows]
    frame = pd.DataFrame([row[1:] for row in table.rows], index=names, columns=others)
    text = frame.rename_axis(columns=first).to_string(
        col_space=[len(title) + 1 for title in others]
    )
    return "\n".join(line.rstrip() for line in text.splitlines())
