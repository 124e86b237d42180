"""The facts of a run, in words: where the labels are from, what made them, and how fast."""

from contextlib import suppress
from typing import NamedTuple

from lib.archive.manifest import Manifest
from lib.common.progress import duration
from lib.models.model_card import Training
from lib.output.reader import Output
from lib.output.summary import Summary
from lib.report.doubts import model_card
from lib.report.gallery import shorten
from lib.tasks import TASKS

Fact = tuple[str, str]
_MOST_SOURCES = 5


class FactGroup(NamedTuple):
    """Facts that belong together; the note says how to read them."""

    title: str
    facts: list[Fact]
    note: str = ""


def facts(output: Output) -> list[FactGroup]:
    """All facts that are known about a run."""
    manifest, summary = output.manifest(), output.summary()
    groups = [_archive(output, manifest), _model(output)]
    if summary is not None:
        groups += [_speed(summary), _versions(summary)]
    return [group for group in groups if group.facts]


def _archive(output: Output, manifest: Manifest | None) -> FactGroup:
    options = output.fingerprint
    sources = output.sources
    more = f" and {len(sources) - _MOST_SOURCES:,} more" if len(sources) > _MOST_SOURCES else ""
    rows = [("images from", ", ".join(map(shorten, sources[:_MOST_SOURCES])) + more)]
    if manifest is not None:
        rows += [("listed", f"{manifest.images:,} images, {manifest.bytes / 1e6:,.2f} MB")]
        rows += [(f"passed over: {why}", f"{n:,}") for why, n in manifest.skipped.items()]
    if options.get("limit") is not None:
        rows.append(("limit", f"the first {options['limit']:,} images"))
    if "max_image_pixels" in options:
        rows.append(("largest image read", f"{options['max_image_pixels'] / 1e6:,.0f} megapixels"))
    rows.append(("labels in", output.name))
    return FactGroup("Archive", rows)


def _model(output: Output) -> FactGroup:
    card = model_card(output)
    training = None if card is None else card.training
    rows = [("model", str(output.fingerprint.get("model", "")))]
    detector = str(output.fingerprint.get("detector", ""))
    rows.append(
        (
            "faces found by",
            "no detector: the images are face crops" * (detector == "none") or detector,
        )
    )
    if training is not None:
        rows += [("trained on", _trained_on(training)), ("terms", training.terms)]
    test = card.metrics.get("test", {}) if card is not None and card.metrics else {}
    for task in TASKS.values():
        with suppress(KeyError, TypeError, ValueError):  # other makers' cards may lack figures
            rows += task.card_rows(test)
    note = "The figures are the model card's, on faces of its own test set. Other archives differ."
    return FactGroup("Model", rows, note if test else "")


def terms_of_model(output: Output) -> list[str]:
    """A sentence about what the model was trained on and the terms of that; none if it is unknown."""
    card = model_card(output)
    if card is None or card.training is None:
        return []
    trained_on, terms = _trained_on(card.training), card.training.terms
    return [f"The model was trained on {trained_on}; terms: {terms}."]


def _trained_on(training: Training) -> str:
    faces = training.faces.get("train")
    return training.source if faces is None else f"{faces:,} faces of {training.source}"


def _speed(summary: Summary) -> FactGroup:
    images, work = summary.images_this_time, summary.work_seconds
    rows = [
        ("speed", f"{summary.images_per_second:.1f} images/s, start-up included"),
        ("labelled", f"{images:,} images in {duration(summary.seconds)}"),
    ]
    if not images or not work:
        return FactGroup("Speed and cost", rows)
    total = sum(work.values())
    rows += [
        (
            f"work: {kind}",
            f"{1000 * seconds / images:.1f} s for 1,000 images ({seconds / total:.0%})",
        )
        for kind, seconds in work.items()
    ]
    rows.append(("work: all", f"{1000 * total / images:.1f} s for 1,000 images"))
    rows.append(("a million images", f"{1e6 * total / images / 3600:,.1f} hours of one worker"))
    return FactGroup(
        "Speed and cost",
        rows,
        "Of the last start of this run; work is summed over all workers. Cost: hours of one worker times "
        "the price of its CPU or GPU for an hour. Small archives overstate it: warming up counts too.",
    )


def _versions(summary: Summary) -> FactGroup:
    return FactGroup("Versions", [(name, v) for name, v in summary.versions.items()])
