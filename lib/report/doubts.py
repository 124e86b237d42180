"""Which labels deserve a second look: uncertain and blurred faces, and those that may be of minors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lib.models.certainty import Certainty
from lib.models.model_card import ModelCard
from lib.output.reader import Output
from lib.scoring.schema import CERTAIN, SHARPNESS
from lib.tasks.task import Floats, numbers
from lib.tasks.under_age import ADULT_AGE, OperatingPoint, under_column

UNCERTAIN, BLURRED, MINOR = "uncertain", "blurred", "minor possible"
CHOICES = {
    "certainty": ("certain", UNCERTAIN),
    "sharpness": ("sharp", BLURRED),
    "minors": ("minor unlikely", MINOR),
}
"""What may be said of a face, first where there is no doubt, by the filter of the gallery."""


@dataclass(frozen=True)
class Doubts:
    """What the run and the model's card say about doubtful labels.

    Attributes:
        threshold: age in years, of the run's probability to be younger.
        point: the card's strictest operating point; None: it has none for that threshold.
        rule: of certain faces; None: the card has none.
    """

    threshold: int = ADULT_AGE
    point: OperatingPoint | None = None
    rule: Certainty | None = None

    @classmethod
    def of(cls, output: Output) -> "Doubts":
        """Those of an output."""
        threshold = output.fingerprint.get("threshold", ADULT_AGE)
        card = model_card(output)
        points = card.under_age.operating_points if card and card.under_age else ()
        return cls(
            threshold,
            min(points, key=lambda point: point.cut, default=None)
            if threshold == ADULT_AGE
            else None,
            card.certainty if card else None,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a face that tell; outputs of earlier versions have none of them."""
        return (CERTAIN, SHARPNESS, under_column(self.threshold).name)

    def of_faces(self, faces: pa.StructArray) -> dict[str, Floats]:
        """For each kind of doubt, (n,): 1 where there is one, 0 where there is none, NaN: unknown."""
        there = {field.name for field in faces.type}
        certain, sharpness, under = (
            numbers(faces.field(name)) if name in there else np.full(len(faces), np.nan)
            for name in self.columns
        )
        return {
            UNCERTAIN: 1 - certain,
            BLURRED: _below(sharpness, self.rule.least_sharpness if self.rule else None),
            MINOR: 1 - _below(under, self.point.cut if self.point else None),
        }

    def words(self, face: Mapping[str, Any]) -> dict[str, str]:
        """What the gallery's filters go by, of one face or a row's main face; empty: unknown."""
        one = pa.array([{name: face.get(name) for name in self.columns}])
        return {
            filter_: "" if np.isnan(doubt[0]) else words[int(doubt[0])]
            for (filter_, words), doubt in zip(
                CHOICES.items(), self.of_faces(one).values(), strict=True
            )
        }


def model_card(output: Output) -> ModelCard | None:
    """The card of the model that labelled, from the run's record; None: it has no readable one."""
    try:
        return ModelCard.from_dict(output.record.model)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _below(values: Floats, cut: float | None) -> Floats:
    """Whether values are below the cut, 1 or 0; NaN where one of both is unknown."""
    if cut is None:
        return np.full(len(values), np.nan)
    return np.where(np.isnan(values), np.nan, values < cut)
