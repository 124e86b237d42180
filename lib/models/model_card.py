"""`CARD.md`: what `card.json` says, for people."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

WEAK_ERROR, WEAK_GENDER = 1.25, 1.5
"""Weak is where the error in years, or the share of wrong genders, is that many times the whole's."""

_TEMPLATE = Path(__file__).with_name("CARD.md.jinja")


def as_markdown(card: Mapping[str, Any]) -> str:
    """Describe a model.

    Args:
        card: of a bundle that jobs.train has made, with `metrics` of the split test.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )  # Markdown, not HTML
    environment.filters |= {"error": _error, "accuracy": _accuracy, "within_5": _within_5}
    environment.filters |= {"start": _start, "teacher": _teacher}
    test = card["metrics"]["test"]
    text = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        **card, test=test, weak="; ".join(_weak(test))
    )
    return "\n\n".join(_filled(part) for part in text.split("\n\n"))


def _filled(part: str) -> str:
    """A paragraph in lines of one length; tables and headings as they are."""
    if part.lstrip().startswith(("|", "#")):
        return part
    end = "\n" if part.endswith("\n") else ""
    return textwrap.fill(part, 106, break_long_words=False, break_on_hyphens=False) + end


def _start(training: Mapping[str, Any]) -> str:
    """What a training began with, in words; where that was trained, too, with what that began with."""
    if not training["weights"]:
        return "random weights"
    said = f"the weights `{training['weights']}` (sha256 {training['weights_sha256'][:16]}…)"
    if before := training.get("weights_training"):
        said += f", trained before {_course(before)}"
    return said


def _course(training: Mapping[str, Any]) -> str:
    return (
        f"for {training['recipe']['epochs']} epochs on {training['faces']['train']:,} faces of "
        f"{training['source']}, which in turn began with {_start(training)}"
    )


def _teacher(teacher: Mapping[str, Any]) -> str:
    """A model that another one learnt from, in words."""
    said = f"{teacher['name']} (sha256 {teacher['sha256'][:16]}…)"
    training = teacher["training"]
    return f"{said}, trained {_course(training)}" if training else said


def _weak(test: Mapping[str, Any]) -> list[str]:
    """The ages at which the model errs far more than on the whole, in words."""
    bands = {name: part for name, part in test["by_age_band"].items() if part["count"]}
    high = WEAK_ERROR * (test["age"]["mae"] or 0)
    age = [name for name, part in bands.items() if (part["age"]["mae"] or 0) > high]
    wrong = WEAK_GENDER * _share_wrong(test)
    gender = [name for name, part in bands.items() if _share_wrong(part) > wrong]
    said = (("age", age), ("gender", gender))
    return [f"{what} is asked of people of {', '.join(ages)} years" for what, ages in said if ages]


def _share_wrong(figures: Mapping[str, Any]) -> float:
    accuracy = figures["gender"]["accuracy"]
    return 0.0 if accuracy is None else 1 - accuracy


def _error(figures: Mapping[str, Any]) -> str:
    return _with_interval(figures["age"]["mae"], figures["confidence_95"]["age_mae"], "{:.2f}")


def _accuracy(figures: Mapping[str, Any]) -> str:
    interval = figures["confidence_95"]["gender_accuracy"]
    return _with_interval(figures["gender"]["accuracy"], interval, "{:.1%}")


def _within_5(figures: Mapping[str, Any]) -> str:
    return _with_interval(figures["age"]["cs5"], figures["confidence_95"]["age_cs5"], "{:.1%}")


def _with_interval(value: float | None, interval: list[float] | None, form: str) -> str:
    if value is None:
        return "–"
    text = form.format(value)
    return f"{text} ({' to '.join(map(form.format, interval))})" if interval else text
