"""What a model says of its own doubts: fitted on validation faces, measured on others."""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from lib.datasets.labelled_faces import LabelledFaces
from lib.evaluation.comparison import Comparison
from lib.faces.quality import pose, turned
from lib.faces.registry import DetectorSpec
from lib.images import Limits, decode
from lib.models.certainty import (
    CERTAINTY_FIGURES,
    Certainty,
    certainty_figures,
    least_score,
    most_spread,
    validated_least,
    validated_most,
)
from lib.scoring.schema import CERTAIN, SHARPNESS
from lib.tasks.age import AGE, AgePredictions, age_distributions
from lib.tasks.age_metrics import age_errors
from lib.tasks.calibration import apply_temperature
from lib.tasks.gender import FEMALE, GENDER, GENDERS
from lib.tasks.task import Floats, Metrics, numbers, objects
from lib.tasks.under_age import (
    UNDER_FIGURES,
    OperatingPoint,
    UnderAge,
    fit_under_age,
    under_age_figures,
    under_column,
)

MOST_POSES = 1000
"""Faces whose pose is looked for."""
_MARGIN = 0.3
"""Added to face crops, as a share of their sides: in tight ones detectors place the nose too high."""


def turns_of(faces: LabelledFaces, count: int, most: int = MOST_POSES) -> Floats:
    """By how many degrees the heads of face crops are turned, (n,), of those that are found again.

    Args:
        faces: of validation.
        count: of the faces.
        most: about so many of them are looked at, evenly spread.
    """
    detector = DetectorSpec().load(1)
    assert detector is not None
    batches = faces.batches(["image"], 64)
    images = (image for batch in batches for image in batch["image"])
    landmarks = []
    for image in islice(images, 0, None, max(1, count // most)):
        pixels = decode(image.as_py(), Limits()).pixels
        margin = round(_MARGIN * max(pixels.shape))
        (found,) = detector.detect(
            [np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), "edge")]
        )
        if len(found):
            landmarks.append(found.landmarks[found.boxes[:, 2].argmax()])
    return turned(pose(np.reshape(landmarks, (-1, 5, 2)).astype(np.float32)))


def fit_under(validation: Comparison) -> UnderAge | None:
    """Calibrate the probability to be younger than an age; None: there are too few faces for it."""
    ages, distributions = _ages(validation), age_distributions(validation.labels)
    if distributions is None:
        return None
    low, high = _span(ages)
    known = ~np.isnan(distributions[:, 0]) & ~np.isnan(low)
    return fit_under_age(distributions[known], low[known], high[known])


def fit_certainty(
    validation: Comparison, gender_temperature: float, turns: Floats
) -> Certainty | None:
    """Find out which faces are certain.

    Args:
        validation: labels with the temperature 1.
        gender_temperature: that was fitted on them.
        turns: of `turns_of`, of the same faces.

    Returns:
        None where there are too few faces for any cut: without one all would be certain.
    """
    labels = validation.labels
    score = apply_temperature(numbers(labels["gender_score"]), gender_temperature)
    rule = Certainty(
        least_gender_score=least_score(score, _right(validation)),
        most_age_std=most_spread(numbers(labels["age_std"]), np.abs(_errors(_ages(validation)))),
        least_sharpness=validated_least(numbers(labels[SHARPNESS])),
        most_turned=validated_most(turns),
    )
    return None if rule == Certainty() else rule


def honesty(test: Comparison, points: Sequence[OperatingPoint] = ()) -> Metrics:
    """Figures of the probability to be a minor, and of certain and uncertain faces.

    Args:
        test: faces that chose nothing.
        points: of the model's card.

    Returns:
        Of `under_age_figures` and `certainty_figures`, each by its key; what the labels do not say is
        left out.
    """
    labels, figures = test.labels, Metrics()
    name = under_column().name
    if name in labels.column_names and labels[name].null_count < len(labels):
        groups = {"gender": objects(test.truth["gender"]), "group": objects(test.truth["group"])}
        figures[UNDER_FIGURES] = under_age_figures(
            numbers(labels[name]), *_span(_ages(test)), groups, points
        )
    if CERTAIN in labels.column_names and labels[CERTAIN].null_count < len(labels):
        known = labels[CERTAIN].combine_chunks().is_valid().to_numpy(zero_copy_only=False)
        certain = labels[CERTAIN].fill_null(False).to_numpy().astype(bool)
        error = np.abs(_errors(_ages(test)))
        figures[CERTAINTY_FIGURES] = certainty_figures(
            certain[known], error[known], _right(test)[known]
        )
    return figures


def _ages(comparison: Comparison) -> AgePredictions:
    return AGE.predictions(comparison.truth, comparison.labels)


def _span(ages: AgePredictions) -> tuple[Floats, Floats]:
    """First and last whole year that each true age may be."""
    whole = np.floor(ages.true)
    return (whole, whole) if ages.bands is None else ages.bands


def _errors(ages: AgePredictions) -> Floats:
    return age_errors(ages.true, ages.expected, ages.bands)


def _right(comparison: Comparison) -> Floats:
    """Whether each gender is right, 1 or 0, (n,); NaN: unknown."""
    genders = GENDER.predictions(comparison.truth, comparison.labels)
    known = np.isin(genders.true, GENDERS) & ~np.isnan(genders.female)
    right = (genders.female >= 0.5) == (genders.true == FEMALE)
    return np.where(known, right, np.nan)
