"""The probability that a person is younger than an age, and what it takes to miss few of them.

The sum of the distribution's classes below that age is such a probability already; Platt scaling makes it
agree with frequencies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from lib.common.errors import UserError
from lib.tasks.binary import calibration_error, roc_auc
from lib.tasks.calibration import logits
from lib.tasks.expectation import AGE_CLASSES
from lib.tasks.task import Column, Floats, Mask, Metrics, TextTable, figure_text, mean

ADULT_AGE = 18
"""Years; the threshold where the user names no other one."""
FITTED_AGES = (3, 6, 10, 13, 16, 18, 21, 25, 30, 40, 50, 60, 70)
"""Thresholds for which the calibration is fitted, where there are enough faces on both sides."""
FEWEST_ON_A_SIDE = 20
ALLOWED = (0.01, 0.05)
"""Shares of the minors that an operating point may miss."""
ADULTS = {"18-20": (18, 20), "21-24": (21, 24), "25-29": (25, 29), "30+": (30, np.inf)}
"""Ages of adults, first and last, by which operating points are broken down."""
UNDER_FIGURES = f"under_{ADULT_AGE}"
"""Key of the metrics that `under_age_figures` gives."""


def check_threshold(threshold: int) -> None:
    """Refuse an age that is no threshold.

    Raises:
        UserError: it is not between two classes.
    """
    if not 1 <= threshold < AGE_CLASSES:
        raise UserError(f"--threshold must be in 1..{AGE_CLASSES - 1}, not {threshold}")


def under_column(threshold: int = ADULT_AGE) -> Column:
    """The column of the label row."""
    return Column(
        f"p_under_{threshold}",
        pa.float32(),
        f"probability that the person is younger than {threshold} years, 0 to 1 (`--threshold`)",
    )


@dataclass(frozen=True)
class OperatingPoint:
    """Where to cut the probability so that few minors are missed.

    Attributes:
        allowed: share of the minors of the validation split that may lie below the cut.
        cut: the probability of being younger than `ADULT_AGE` from which a face gets a second look.
    """

    allowed: float
    cut: float


@dataclass(frozen=True)
class UnderAge:
    """Platt scaling for several thresholds: sigmoid(slope × logit of the classes' sum + offset).

    Attributes:
        ages: thresholds in years, ascending.
        slopes, offsets: of each; those of other ages lie between, or are those of the nearest one.
        operating_points: for `ADULT_AGE`; none where validation had too few minors.
    """

    ages: tuple[int, ...]
    slopes: tuple[float, ...]
    offsets: tuple[float, ...]
    operating_points: tuple[OperatingPoint, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "UnderAge":
        """Read plain values.

        Raises:
            KeyError, TypeError, ValueError: they are none.
        """
        points = tuple(
            OperatingPoint(float(point["allowed"]), float(point["cut"]))
            for point in values["operating_points"]
        )
        ages = tuple(map(int, values["ages"]))
        slopes, offsets = (tuple(map(float, values[name])) for name in ("slopes", "offsets"))
        if not ages or not len(ages) == len(slopes) == len(offsets):
            raise ValueError("ages, slopes and offsets must be lists of the same length")
        return cls(ages, slopes, offsets, points)


def p_under(
    probabilities: NDArray[np.float32], threshold: int, calibration: UnderAge | None
) -> Floats:
    """Give the probability that each person is younger than the threshold.

    Args:
        probabilities: (n, 101) of the ages; a row of NaN stays NaN.
        threshold: in whole years.
        calibration: None: the sum of the classes below the threshold as it is.

    Returns:
        (n,), 0 to 1.
    """
    below = _mass_below(probabilities, threshold)
    if calibration is None:
        return below
    slope = np.interp(threshold, calibration.ages, calibration.slopes)
    offset = np.interp(threshold, calibration.ages, calibration.offsets)
    return 1 / (1 + np.exp(-(slope * logits(below) + offset)))


def fit_under_age(probabilities: NDArray[np.float32], low: Floats, high: Floats) -> UnderAge | None:
    """Fit the calibration on validation faces, and find the operating points.

    Args:
        probabilities: (n, 101) of the ages.
        low, high: (n,) first and last whole year that the true age may be. A face counts for a
            threshold only where it is known to be on one side.

    Returns:
        None where no threshold has `FEWEST_ON_A_SIDE` faces on both sides.
    """
    fitted = {}
    for age in FITTED_AGES:
        under, over = high < age, low >= age
        if min(under.sum(), over.sum()) >= FEWEST_ON_A_SIDE:
            known = under | over
            fitted[age] = fit_platt(logits(_mass_below(probabilities[known], age)), under[known])
    if not fitted:
        return None
    slopes, offsets = zip(*fitted.values(), strict=True)
    calibration = UnderAge(tuple(fitted), slopes, offsets)
    if (minors := high < ADULT_AGE).sum() < FEWEST_ON_A_SIDE:
        return calibration
    scores = p_under(probabilities[minors], ADULT_AGE, calibration)
    return UnderAge(tuple(fitted), slopes, offsets, operating_points(scores))


def fit_platt(scores: Floats, positive: Mask) -> tuple[float, float]:
    """Find the slope and the offset with which sigmoid(slope × score + offset) has the lowest log loss.

    Platt 1999, "Probabilistic outputs for support vector machines", with his targets, which keep a
    perfect separation from an infinite slope.

    Args:
        scores: (n,).
        positive: (n,) bool, some of both kinds.
    """
    from scipy.optimize import minimize

    count = positive.sum()
    target = np.where(positive, (count + 1) / (count + 2), 1 / (len(positive) - count + 2))

    def loss(line: Floats) -> float:
        odds = line[0] * scores + line[1]
        return float(np.mean(np.logaddexp(0, odds) - target * odds))

    slope, offset = minimize(loss, (1.0, 0.0), bounds=((0, None), (None, None))).x
    return float(slope), float(offset)


def operating_points(
    of_minors: Floats, allowed: Sequence[float] = ALLOWED
) -> tuple[OperatingPoint, ...]:
    """The highest cuts below which no more than the allowed shares of the minors lie.

    Args:
        of_minors: (n,) at least one probability.
        allowed: shares, 0 to 1, below 1.
    """
    ascending = np.sort(of_minors.astype(np.float32))  # as the label row has them
    return tuple(
        OperatingPoint(share, float(ascending[int(share * len(ascending))])) for share in allowed
    )


def _mass_below(probabilities: ArrayLike, threshold: int) -> Floats:
    """Sum of the classes below a threshold, (n,); a class stands for the year that begins with it."""
    p = np.asarray(probabilities, np.float64)
    # Two sums of the same numbers may differ in their last digit.
    return np.minimum(p[:, :threshold].sum(axis=1) / p.sum(axis=1), 1.0)


def under_age_figures(
    score: Floats,
    low: Floats,
    high: Floats,
    groups: Mapping[str, NDArray[np.object_]],
    points: Sequence[OperatingPoint],
) -> Metrics:
    """Figures of the probability to be younger than `ADULT_AGE`, and of its operating points.

    Args:
        score: (n,) the probability; NaN: unknown.
        low, high: (n,) first and last whole year that the true age may be; NaN: unknown.
        groups: by title, the name of each face's group, (n,); None: in no group.
        points: of the model's card.

    Returns:
        count (of the faces that are known to be on one side), minors, roc_auc, ece; and by operating
        point `allowed`, `cut` and `parts`: for all faces, for each group, and for adults by age the
        numbers of minors and adults, the share of the minors below the cut, `missed`, and of the adults
        from the cut on, `second_look`.
    """
    minor, adult = high < ADULT_AGE, low >= ADULT_AGE
    known = (minor | adult) & ~np.isnan(score)
    parts = {"all": known}
    for title, names in groups.items():
        for name in sorted({str(name) for name in names if name is not None}):
            parts[f"{title} {name}"] = known & (names == name)
    for name, (first, last) in ADULTS.items():
        parts[f"age {name}"] = known & (low >= first) & (high <= last)

    def figures(part: Mask, cut: float) -> Metrics:
        of_minors, of_adults = score[part & minor], score[part & adult]
        return {
            "minors": len(of_minors),
            "adults": len(of_adults),
            "missed": mean(of_minors < cut),
            "second_look": mean(of_adults >= cut),
        }

    return {
        "count": int(known.sum()),
        "minors": int((known & minor).sum()),
        "roc_auc": roc_auc(minor[known], score[known]),
        "ece": calibration_error(minor[known], score[known]),
        "operating_points": [
            {
                "allowed": point.allowed,
                "cut": point.cut,
                "parts": {n: figures(part, point.cut) for n, part in parts.items() if part.any()},
            }
            for point in points
        ],
    }


def under_age_tables(figures: Metrics) -> list[TextTable]:
    """What `under_age_figures` gives, as tables."""
    summary = [
        ("faces", str(figures["count"])),
        ("minors", str(figures["minors"])),
        ("ROC AUC", figure_text("roc_auc", figures["roc_auc"])),
        ("calibration error", figure_text("ece", figures["ece"])),
    ]
    tables = [TextTable((f"p_under_{ADULT_AGE}", ""), summary)]
    if points := figures["operating_points"]:
        tables.append(operating_table(points))
    return tables


def operating_table(points: Sequence[Metrics]) -> TextTable:
    """The operating points of `under_age_figures`, at least one, side by side."""
    titles = [
        title
        for point in points
        for title in (f"missed at {point['cut']:.3f}", f"sent at {point['cut']:.3f}")
    ]
    rows = []
    for name, part in points[0]["parts"].items():
        of_points = [point["parts"][name] for point in points]
        shares = [
            figure_text(key, of[key]) for of in of_points for key in ("missed", "second_look")
        ]
        rows.append((name, f"{part['minors']:,}", f"{part['adults']:,}", *shares))
    return TextTable(("faces", "minors", "adults", *titles), rows)
