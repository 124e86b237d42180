"""`CARD.md`: what `card.json` says, for people."""

import textwrap
from pathlib import Path

import jinja2

from lib.models.certainty import CERTAINTY_FIGURES, LEAST_RIGHT, MOST_YEARS, certainty_table
from lib.models.model_card import ModelCard, Teacher, Training
from lib.tasks import GROUPS, TASKS
from lib.tasks.age import AGE
from lib.tasks.task import Metrics, TextTable
from lib.tasks.under_age import UNDER_FIGURES, operating_table

MIRRORED = "test_mirrored"
"""Key of the figures of the split test where faces and their mirror images are averaged."""
_TEMPLATE = Path(__file__).with_name("CARD.md.jinja")


def as_markdown(card: ModelCard) -> str:
    """Describe a model.

    Args:
        card: of a bundle, with `metrics` of the split test.

    Raises:
        ValueError: it has no training or no such metrics.
    """
    if card.training is None or not card.metrics or "test" not in card.metrics:
        raise ValueError(f"the card of {card.name!r} lacks its training or the metrics of the test")
    test = card.metrics["test"]
    rows = {task.introduction: task.card_rows(test) for task in TASKS.values()}
    introduction = ", and ".join(words for words, of_task in rows.items() if of_task)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )  # Markdown, not HTML
    environment.filters |= {"start": _start, "teacher": _teacher, "markdown": _markdown}
    points = test.get(UNDER_FIGURES, {}).get("operating_points")
    certainty = test.get(CERTAINTY_FIGURES)
    text = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        card=card,
        training=card.training,
        test=test,
        introduction=introduction[:1].upper() + introduction[1:],
        rows=[row for of_task in rows.values() for row in of_task],
        mirrored=_headlines(card.metrics.get(MIRRORED)),
        tasks=TASKS.values(),
        groups=GROUPS,
        operating=operating_table(points) if points else None,
        allowed=" or ".join(f"{point['allowed']:.0%}" for point in points or ()),
        certainty=certainty_table(certainty) if certainty and card.certainty else None,
        least_right=LEAST_RIGHT,
        most_years=MOST_YEARS,
        weak="; ".join(_weak(test)),
    )
    return "\n\n".join(_filled(part) for part in text.split("\n\n"))


def _headlines(figures: Metrics | None) -> str:
    """The main figure of each task that was measured, in words."""
    if figures is None:
        return ""
    known = [task for task in TASKS.values() if task.card_rows(figures)]
    return "; ".join(f"{task.headline_title} {task.headline_text(figures)}" for task in known)


def _filled(part: str) -> str:
    """A paragraph in lines of one length; tables and headings as they are."""
    if part.lstrip().startswith(("|", "#")):
        return part
    end = "\n" if part.endswith("\n") else ""
    return textwrap.fill(part, 106, break_long_words=False, break_on_hyphens=False) + end


def _markdown(table: TextTable) -> str:
    """A table, its numbers to the right, and the empty line behind it."""
    lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _start(training: Training) -> str:
    """What the backbone started from, in words, and how that was trained in turn."""
    if not training.weights:
        return "random weights"
    words = f"the weights `{training.weights}` (sha256 {(training.weights_sha256 or '')[:16]}…)"
    if training.weights_training:
        words += f", trained before {_course(training.weights_training)}"
    return words


def _course(training: Training) -> str:
    return (
        f"for {training.recipe['epochs']} epochs on {training.faces['train']:,} faces of "
        f"{training.source}, which in turn began with {_start(training)}"
    )


def _teacher(teacher: Teacher) -> str:
    """A model whose answers another one learnt, in words."""
    words = f"{teacher.name} (sha256 {teacher.sha256[:16]}…)"
    return f"{words}, trained {_course(teacher.training)}" if teacher.training else words


def _weak(test: Metrics) -> list[str]:
    """The ages at which the errors of a task are far above those of all faces, in words."""
    bands = {name: part for name, part in test[AGE.groups_key].items() if part["count"]}
    weak = {
        name: [band for band, part in bands.items() if task.is_weak(part, test)]
        for name, task in TASKS.items()
    }
    return [
        f"{name} is asked of people of {', '.join(of)} years" for name, of in weak.items() if of
    ]
