"""What models say of faces and of their labels: fixed numbers for each face, whatever the pictures."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.audit.faces import FaceLabels
from lib.audit.look import NOT_LOOKED
from lib.models.bundle import Bundle
from lib.tasks.age import AGE, age_distributions
from lib.tasks.calibration import IntervalScales, alone_scale
from lib.tasks.expectation import age_density, age_interval, expected_age
from lib.tasks.gender import FEMALE
from lib.tasks.task import numbers

SURE = 0.99
"""Share of the true ages that the interval should hold which a suspect age lies outside of."""
OPINION_SCHEMA = pa.schema(
    [
        ("place", pa.int64()),
        ("picture", pa.int64()),  # the first bytes of the encoded picture's digest
        ("faces_found", pa.int16()),  # or one of `look.UNREADABLE` and `look.NOT_LOOKED`
        ("age", pa.float32()),  # expected, in years; NaN: no opinion
        ("age_std", pa.float32()),
        ("age_low", pa.float32()),  # of the interval that holds `SURE` of the ages
        ("age_high", pa.float32()),
        ("age_density", pa.float32()),  # probability of the labelled age, of one year of a band
        ("female", pa.float32()),  # probability, calibrated; NaN: no opinion
    ]
)
_NUMBERS = ("age", "age_std", "age_low", "age_high", "age_density", "female")


def opinions_of(rows: pa.Table, labels: FaceLabels, bundle: Bundle) -> pa.Table:
    """What a model says of the faces of label rows, with its own calibration.

    Args:
        rows: (n) of `lib.scoring.schema`, with the distribution of ages and `look.CARRIED`.
        labels: of all faces.
        bundle: the model.

    Returns:
        (n) rows of `OPINION_SCHEMA`.
    """
    place = rows["place"].to_numpy()
    values = {name: np.full(len(rows), np.nan, np.float32) for name in _NUMBERS}
    distributions = age_distributions(rows)
    assert distributions is not None
    known = ~np.isnan(distributions[:, 0])
    if known.any():
        p = distributions[known]
        age, values["age_std"][known] = expected_age(p)
        # By the labelled age, too, one that was moved would count as a person who looks like another age.
        scale = alone_scale(IntervalScales.of(bundle.card.calibration[AGE.factor]), age)
        low, high = labels.age_low[place[known]], labels.age_high[place[known]]
        values["age"][known] = age
        values["age_low"][known], values["age_high"][known] = age_interval(p, SURE, scale)
        values["age_density"][known] = age_density(p, low, high, scale)
    score = numbers(rows["gender_score"])
    female = np.array(rows["gender"].to_pylist(), object) == FEMALE
    values["female"] = np.where(female, score, 1 - score).astype(np.float32)
    columns = {name: rows[name] for name in ("place", "picture", "faces_found")} | values
    return pa.table(columns, schema=OPINION_SCHEMA)


@dataclass(frozen=True)
class Opinions:
    """The mean of what models say of n faces, in the order of their places: 40 bytes for each.

    Attributes:
        picture: int64 (n,).
        faces_found: int16 (n,).
        sums: of each of the numbers float32 (n,).
        counts: of each of the numbers int8 (n,), how many models have one: some know one task only.
    """

    picture: NDArray[np.int64]
    faces_found: NDArray[np.int16]
    sums: dict[str, NDArray[np.float32]]
    counts: dict[str, NDArray[np.int8]]

    @classmethod
    def none(cls, faces: int) -> "Opinions":
        """Of so many faces, nothing yet."""
        return cls(
            np.zeros(faces, np.int64),
            np.full(faces, NOT_LOOKED, np.int16),
            {name: np.zeros(faces, np.float32) for name in _NUMBERS},
            {name: np.zeros(faces, np.int8) for name in _NUMBERS},
        )

    def add(self, rows: pa.Table) -> None:
        """Take up rows of `OPINION_SCHEMA`, of one model about some faces."""
        place = rows["place"].to_numpy()
        self.picture[place] = rows["picture"].to_numpy()
        found = rows["faces_found"].to_numpy()
        looked = found != NOT_LOOKED
        self.faces_found[place[looked]] = found[looked]
        for name in _NUMBERS:
            values = rows[name].to_numpy()
            self.sums[name][place] += np.nan_to_num(values)
            self.counts[name][place] += ~np.isnan(values)

    def mean(
        self, name: str, places: NDArray[np.int64] | slice = slice(None)
    ) -> NDArray[np.float64]:
        """One of the numbers of all faces, (n,), or of some; NaN where no model has one."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sums[name][places].astype(np.float64) / self.counts[name][places]
