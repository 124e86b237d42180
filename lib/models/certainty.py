"""The rule that says which faces are certain: whose label is worth something."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lib.tasks.task import Floats, Mask, Metrics, TextTable, figure_text, mean

LEAST_RIGHT = 0.75
"""Share of right genders below which a gender is not worth a label."""
MOST_YEARS = 10.0
"""Mean absolute error of the age above which an age is not worth a label."""
VALIDATED = 0.99
"""Share of the validation faces that are sharp enough, or turned little enough: of blurred faces and
profiles beyond these nobody knows how right their labels are."""
CERTAINTY_FIGURES = "certainty"
"""Key of the metrics that `certainty_figures` gives."""
FEWEST_FACES = 200
"""With fewer faces of validation a cut would be chance."""


@dataclass(frozen=True)
class Certainty:
    """Cuts; a face beyond one of them is uncertain. None: no such cut. What is unknown is beyond none.

    Attributes:
        least_gender_score: probability of the gender.
        most_age_std: standard deviation of the age's distribution, in years.
        least_sharpness: see `lib.faces.quality.sharpness`.
        most_turned: degrees; see `lib.faces.quality.turned`.
    """

    least_gender_score: float | None = None
    most_age_std: float | None = None
    least_sharpness: float | None = None
    most_turned: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Certainty":
        """Read plain values.

        Raises:
            TypeError, ValueError: they are none.
        """
        given = {field.name: values.get(field.name) for field in fields(cls)}
        return cls(**{n: None if value is None else float(value) for n, value in given.items()})

    def certain(
        self, gender_score: Floats, age_std: Floats, sharpness: Floats, turned: Floats
    ) -> Mask:
        """Which faces are certain; all (n,), NaN: unknown."""
        beyond = np.zeros(len(gender_score), bool)
        for values, least in (
            (gender_score, self.least_gender_score), (sharpness, self.least_sharpness),
        ):  # fmt: skip
            if least is not None:
                beyond |= values < least
        for values, most in ((age_std, self.most_age_std), (turned, self.most_turned)):
            if most is not None:
                beyond |= values > most
        return ~beyond

    def __str__(self) -> str:
        """The rule in words; empty where nothing is uncertain."""
        cuts = (
            ("a gender_score of at least", self.least_gender_score, "{:.2f}"),
            ("an age_std of at most", self.most_age_std, "{:.1f} years"),
            ("a sharpness of at least", self.least_sharpness, "{:.0f}"),
            ("a head turned by at most", self.most_turned, "{:.0f}°, where the pose is known"),
        )
        return ", ".join(f"{what} {form.format(c)}" for what, c, form in cuts if c is not None)


def least_score(score: Floats, right: Floats) -> float | None:
    """The score from which at least `LEAST_RIGHT` of the faces are right.

    The share at each score comes from isotonic regression: that never falls as the score grows.

    Args:
        score: (n,) of validation faces.
        right: (n,) 1 where the label is, else 0; NaN: unknown.

    Returns:
        None where there are too few faces, or nothing to cut off; the highest score where none is enough.
    """
    return _least(score, right, LEAST_RIGHT)


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
    """The value that all but a hundredth of the validation faces do not exceed."""
    least = validated_least(-values)
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


def certainty_figures(certain: Mask, age_error: Floats, gender_right: Floats) -> Metrics:
    """How right the labels of certain and of uncertain faces are.

    Args:
        certain: (n,).
        age_error: (n,) absolute, in years; NaN: unknown.
        gender_right: (n,) 1 or 0; NaN: unknown.

    Returns:
        share, of certain faces; and for `certain` and `uncertain` ones count, age_mae, gender_accuracy.
    """

    def figures(part: Mask) -> Metrics:
        error, right = (values[part & ~np.isnan(values)] for values in (age_error, gender_right))
        return {
            "count": int(part.sum()),
            "age_mae": mean(error),
            "gender_accuracy": mean(right),
        }

    parts = {"certain": figures(certain), "uncertain": figures(~certain)}
    return {"share": mean(certain), **parts}


def certainty_table(figures: Metrics) -> TextTable:
    """What `certainty_figures` gives, as a table."""
    rows = [
        (
            name,
            f"{figures[name]['count']:,}",
            figure_text("share", share),
            figure_text("mae", figures[name]["age_mae"]),
            figure_text("accuracy", figures[name]["gender_accuracy"]),
        )
        for name, share in (("certain", figures["share"]), ("uncertain", 1 - figures["share"]))
    ]
    return TextTable(("faces", "count", "share", "error, years", "gender"), rows)
