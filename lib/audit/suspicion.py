"""How likely the labels of a face are wrong, and what kind of fault it is.

Before looking, a label counts as wrong with the probability `PRIOR`, and a wrong one is any of the
classes, all equally likely. What the models say then gives, by the rule of Bayes, the probability that
it is wrong: the odds are PRIOR / (1 - PRIOR) times the share of one class over the probability that the
models give the label. That has one scale for ages and genders, and the models' own uncertainty is in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib.audit.faces import UNKNOWN, FaceLabels
from lib.audit.look import UNREADABLE
from lib.audit.opinions import Opinions
from lib.tasks.expectation import AGE_CLASSES
from lib.tasks.gender import GENDERS

PRIOR = 0.033
"""The mean share of wrong labels in ten well-kept data sets: Northcutt, Athalye and Mueller 2021,
"Pervasive Label Errors in Test Sets Destabilize Machine Learning Benchmarks"."""
GENDER, AGE, DUPLICATE, NO_FACE, SEVERAL = KINDS = (
    "gender_contradicted", "age_off", "duplicate", "not_a_face", "two_faces",
)  # fmt: skip
MEANINGS = {
    GENDER: "the models say the other gender, as surely as they do on average where it is labelled",
    AGE: "the labelled age lies outside the models' 99% interval",
    DUPLICATE: "the same picture has other labels elsewhere in the data",
    NO_FACE: "the detector finds no face in the picture, or the picture cannot be read",
    SEVERAL: "the detector finds a second face of at least a quarter of the largest one's area",
}
_EVEN = np.log(2.0)
"""What a fault of the picture adds: alone it makes the odds even."""
_LEAST = 1e-12
"""Probability that a label has at least: networks say 0 of what they have never seen."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Suspicion:
    """Of n faces: 21 bytes for each.

    Attributes:
        probability: float32 (n,), that a label is wrong.
        rank: int64 (n,), 1 for the most suspect face.
        kinds: of each kind bool (n,).
        gender_bounds: probabilities of female and of male from which a gender contradicts the other
            label; NaN where no face has that label.
    """

    probability: NDArray[np.float32]
    rank: NDArray[np.int64]
    kinds: dict[str, Mask]
    gender_bounds: tuple[float, float]

    @property
    def suspect(self) -> Mask:
        """Which faces have a kind, (n,)."""
        return np.logical_or.reduce(list(self.kinds.values()))

    def most_suspect(self, kind: str, most: int) -> NDArray[np.int64]:
        """The places of the faces of a kind, most suspect first."""
        places = np.flatnonzero(self.kinds[kind])
        return places[np.argsort(self.rank[places])][:most]


def suspicion(labels: FaceLabels, opinions: Opinions) -> Suspicion:
    """Judge all labels."""
    female = opinions.mean("female")
    bounds = gender_bounds(labels.female, female)
    # Models that cannot tell genders are sure of none.
    contradicted = ((labels.female == 0) & (female > 0.5) & (female >= bounds[0])) | (
        (labels.female == 1) & (female < 0.5) & (1 - female >= bounds[1])
    )
    low, high = opinions.mean("age_low"), opinions.mean("age_high")
    known = labels.age_low != UNKNOWN
    off = known & ((labels.age_high < low) | (labels.age_low > high))
    kinds = {
        GENDER: contradicted,
        AGE: off,
        DUPLICATE: conflicting(opinions.picture, labels),
        NO_FACE: (opinions.faces_found == 0) | (opinions.faces_found == UNREADABLE),
        SEVERAL: opinions.faces_found > 1,
    }
    # -log of the probability that all is right: it tells apart what is 1 in single precision, too.
    evidence = _evidence(gender_odds(labels.female, female))
    evidence += _evidence(age_odds(labels, opinions.mean("age_density")))
    for kind in (DUPLICATE, NO_FACE, SEVERAL):
        evidence += _EVEN * kinds[kind]
    order = np.argsort(-evidence, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return Suspicion((-np.expm1(-evidence)).astype(np.float32), rank, kinds, bounds)


def gender_bounds(labelled: NDArray[np.int8], female: Floats) -> tuple[float, float]:
    """The mean probability of female of faces so labelled, and of male of those.

    Above it a gender contradicts another label: "confident learning" (Northcutt, Jiang and Chuang 2021,
    equation 2). It follows the models: those that have learnt wrong labels are never very sure.

    Args:
        labelled: (n,), as of `FaceLabels.female`.
        female: (n,) probability of female; NaN: unknown.
    """
    known = ~np.isnan(female)
    sure_female, sure_male = female[known & (labelled == 1)], 1 - female[known & (labelled == 0)]
    return tuple(float(of.mean()) if len(of) else np.nan for of in (sure_female, sure_male))  # type: ignore[return-value]


def gender_odds(labelled: NDArray[np.int8], female: Floats) -> Floats:
    """Log odds that a gender is wrong, (n,); NaN where there is no label or no opinion."""
    says = np.where(labelled == 1, female, 1 - female)
    return np.where(labelled != UNKNOWN, _log_odds(says, len(GENDERS)), np.nan)


def age_odds(labels: FaceLabels, density: Floats) -> Floats:
    """Log odds that an age is wrong, (n,); NaN where there is no label or no opinion.

    Args:
        labels: of n faces.
        density: (n,), the probability of the labelled age, or the mean of the years of the labelled band.
    """
    return np.where(labels.age_low != UNKNOWN, _log_odds(density, AGE_CLASSES), np.nan)


def conflicting(picture: NDArray[np.int64], labels: FaceLabels) -> Mask:
    """Faces whose picture another face has with another label, (n,)."""
    order = np.argsort(picture, kind="stable")
    same = picture[order[1:]] == picture[order[:-1]]
    group = np.concatenate([[0], np.cumsum(~same)])[: len(order)]
    found = np.zeros(len(order), bool)
    for values in (labels.female, labels.age_low, labels.age_high):
        least = np.full(len(order), np.iinfo(np.int16).max, np.int16)
        largest = np.full(len(order), np.iinfo(np.int16).min, np.int16)
        np.minimum.at(least, group, values[order])
        np.maximum.at(largest, group, values[order])
        found[order] |= (least < largest)[group]
    return found


def _log_odds(probability: Floats, classes: int) -> Floats:
    prior = np.log(PRIOR / (1 - PRIOR))
    return prior - np.log(classes) - np.log(np.maximum(probability, _LEAST))


def _evidence(odds: Floats) -> Floats:
    """-log of the probability that a label is right; 0 where nothing is known."""
    return np.where(np.isnan(odds), 0.0, np.logaddexp(0.0, np.nan_to_num(odds)))
