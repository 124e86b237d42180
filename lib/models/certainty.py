"""The rule that says which faces are certain: whose label is worth something."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.tasks.task import Floats, Mask

LEAST_RIGHT = 0.75
"""Share of right genders below which a gender is not worth a label."""
MOST_YEARS = 10.0
"""Mean absolute error of the age above which an age is not worth a label."""
VALIDATED = 0.99
"""Share of the validation faces that are sharp enough, or turned little enough: of blurred faces and
profiles beyond these nobody knows how right their labels are."""
FEWEST_FACES = 200
"""With fewer faces of validation a cut would be chance."""


@dataclass(frozen=True)
class Certainty:
    """Cuts; a face beyond one of them is uncertain. None: no such cut. What is unknown is beyond none.

    Attributes:
        least_gender_score: probability of the gender.
        most_age_std: standard deviation of the age's distribution, in years.
        least_sharpness: see `lib.faces.quality.sharpness`.
        most_yaw, most_pitch: degrees, to either side; see `lib.faces.quality.pose`.
    """

    least_gender_score: float | None = None
    most_age_std: float | None = None
    least_sharpness: float | None = None
    most_yaw: float | None = None
    most_pitch: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Certainty":
        """Read plain values.

        Raises:
            TypeError, ValueError: they are none.
        """
        given = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**{n: None if value is None else float(value) for n, value in given.items()})

    def certain(
        self, gender_score: Floats, age_std: Floats, sharpness: Floats, yaw: Floats, pitch: Floats
    ) -> Mask:
        """Which faces are certain; all (n,), NaN: unknown."""
        beyond = np.zeros(len(gender_score), bool)
        for values, least in (
            (gender_score, self.least_gender_score), (sharpness, self.least_sharpness),
        ):  # fmt: skip
            if least is not None:
                beyond |= values < least
        for values, most in (
            (age_std, self.most_age_std), (np.abs(yaw), self.most_yaw),
            (np.abs(pitch), self.most_pitch),
        ):  # fmt: skip
            if most is not None:
                beyond |= values > most
        return ~beyond


def least_score(score: Floats, right: NDArray[np.bool_]) -> float | None:
    """The score from which at least `LEAST_RIGHT` of the faces are right.

    The share at each score comes from isotonic regression: that never falls as the score grows.

    Args:
        score: (n,) of validation faces.
        right: (n,) whether the label is.

    Returns:
        None where there are too few faces, or nothing to cut off; the highest score where none is enough.
    """
    return _least(score, right.astype(np.float64), LEAST_RIGHT)


def most_spread(std: Floats, error: Floats) -> float | None:
    """The standard deviation up to which faces are off by no more than `MOST_YEARS` on average.

    Args:
        std: (n,) of validation faces, in years.
        error: (n,) absolute, in years.

    Returns:
        As of `least_score`.
    """
    found = _least(-std, -error, -MOST_YEARS)
    return None if found is None else -found


def validated_least(values: Floats) -> float | None:
    """The value that all but a hundredth of the validation faces reach; NaN: unknown; None: too few."""
    known = values[~np.isnan(values)]
    return None if len(known) < FEWEST_FACES else float(np.quantile(known, 1 - VALIDATED))


def validated_most(values: Floats) -> float | None:
    """The same for absolute values that all but a hundredth stay below."""
    least = validated_least(-np.abs(values))
    return None if least is None else -least


def _least(scores: Floats, merit: Floats, enough: float) -> float | None:
    """The lowest score whose merit, by isotonic regression, is enough."""
    from sklearn.isotonic import isotonic_regression

    known = ~np.isnan(scores + merit)
    scores, merit = scores[known], merit[known]
    if len(scores) < FEWEST_FACES:
        return None
    order = np.argsort(scores)
    too_low = int((isotonic_regression(merit[order]) < enough).sum())
    return float(scores[order[min(too_low, len(scores) - 1)]]) if too_low else None
