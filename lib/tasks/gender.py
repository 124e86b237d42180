"""The task gender: how a face is labelled in data sets of this kind, female or male."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.tasks.binary import calibration_error, roc_auc
from lib.tasks.calibration import apply_temperature, fit_temperature
from lib.tasks.task import (
    Column,
    Factor,
    Floats,
    Headline,
    Histogram,
    Mask,
    Metrics,
    Predictions,
    Task,
    TextTable,
    figure_text,
    interval_text,
    mean,
    numbers,
    objects,
    with_interval,
)

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.figure import Figure

Name = Literal["gender"]
Gender = Literal["female", "male"]
GENDERS: tuple[Gender, ...] = get_args(Gender)
FEMALE, MALE = GENDERS

SCORE_BINS = 50
"""Of a report's histogram of probabilities, from 0.5 to 1."""
WEAK_GENDER = 1.5
"""A part is weak where the share of wrong genders is that many times the whole's."""


class _Recipe(Protocol):
    """The options of training that concern genders."""

    gender_weight: float


@dataclass(frozen=True)
class GenderPredictions(Predictions):
    """Genders of n faces.

    Attributes:
        true: (n,) object, "female", "male" or None: unknown.
        female: (n,) float64, probability of female in 0..1; NaN: unknown.
    """

    true: NDArray[np.object_]
    female: Floats

    def known(self) -> tuple[Mask, Floats]:
        """Of the faces of which both is known: whether they are female, and the probability of it."""
        known = np.isin(self.true, GENDERS) & ~np.isnan(self.female)
        return self.true[known] == FEMALE, self.female[known]


class _GenderTask(Task[GenderPredictions]):
    name = "gender"
    classes = len(GENDERS)
    labels = GENDERS
    factor = "gender_temperature"
    columns = (
        Column(
            "gender", pa.string(), "`female` or `male`: how such a face is labelled in data sets"
        ),
        Column("gender_score", pa.float32(), "probability of that gender, 0.5 to 1"),
    )
    headline_title = "gender"
    evaluated_columns = ("gender", "gender_score")
    groups_key = "by_gender"
    groups = GENDERS
    group_figures: ClassVar = {"gender accuracy": "accuracy", "ROC AUC": "roc_auc"}
    validation_formats: ClassVar = {"val_gender_accuracy": "gender {:.1%}"}
    histogram = Histogram(
        "Gender: probability",
        np.linspace(0.5, 1, SCORE_BINS + 1),
        "{:.2f}",
        "{share:.0%} of the faces have a gender with a probability of at least {edge}.",
        0.9,
    )
    introduction = "gender"

    def class_indices(self, truth: NDArray[Any]) -> NDArray[np.int64]:
        return np.select([truth == label for label in GENDERS], range(len(GENDERS)), -1)

    def targets(
        self, indices: NDArray[np.int64], recipe: _Recipe, spans: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        return np.eye(len(GENDERS), dtype=np.float32)[indices]

    def loss(
        self, targets: "tf.Tensor", probabilities: "tf.Tensor", recipe: _Recipe
    ) -> "tf.Tensor":
        """Weighted cross entropy."""
        import tensorflow as tf

        entropy = -tf.reduce_sum(targets * tf.math.log(probabilities + 1e-7), axis=1)
        return recipe.gender_weight * entropy

    def validation_sums(
        self,
        probabilities: NDArray[np.float32],
        indices: NDArray[np.int64],
        spans: NDArray[np.int64] | None = None,
    ) -> dict[str, float]:
        return {"val_gender_accuracy": float((probabilities.argmax(axis=1) == indices).sum())}

    def validation_error(self, figures: Mapping[str, float]) -> float:
        return 1 - figures["val_gender_accuracy"]

    def label(
        self, probabilities: NDArray[np.float32], labels: Sequence[str], factor: Factor
    ) -> dict[str, Any]:
        assert isinstance(factor, float)
        names = np.array([*labels, None], dtype=object)
        calibrated = apply_temperature(probabilities, factor)
        unknown = np.isnan(calibrated[:, 0])
        likelier = np.where(unknown, len(labels), calibrated.argmax(axis=1))
        return {"gender": names[likelier], "gender_score": calibrated.max(axis=1)}

    def words(self, face: Mapping[str, Any]) -> str:
        return "" if face["gender"] is None else f"{face['gender']} {face['gender_score']:.2f}"

    def predictions(self, truth: pa.Table, labels: pa.Table) -> GenderPredictions:
        score = numbers(labels["gender_score"])
        female = np.where(objects(labels["gender"]) == FEMALE, score, 1 - score)
        return GenderPredictions(objects(truth["gender"]), female)

    def calibrate(self, predictions: GenderPredictions) -> Factor:
        known = ~np.isnan(predictions.female)
        if not known.any():
            return 1.0
        return fit_temperature((predictions.true == FEMALE)[known], predictions.female[known])

    def figures(self, predictions: GenderPredictions) -> Metrics:
        return {"gender": gender_metrics(predictions)}

    def headlines(self, predictions: GenderPredictions) -> dict[str, Headline]:
        is_female, female = predictions.known()
        return {"gender_accuracy": Headline(((female >= 0.5) == is_female).astype(np.float64))}

    def group_of(self, predictions: GenderPredictions) -> NDArray[np.object_]:
        return predictions.true

    def plots(
        self, predictions: GenderPredictions, labels: pa.Table
    ) -> "Iterator[tuple[str, Figure]]":
        from lib.tasks import plots

        known = predictions.known()
        yield "gender_roc", plots.gender_roc(*known)
        yield "gender_reliability", plots.gender_reliability(*known)

    def tables(self, metrics: Metrics) -> list[TextTable]:
        gender = metrics["gender"]
        interval = interval_text("accuracy", metrics["confidence_95"]["gender_accuracy"])
        summary = [
            ("faces", str(gender["count"]), ""),
            ("without a prediction", str(gender["missing"]), ""),
            ("accuracy", figure_text("accuracy", gender["accuracy"]), interval),
            ("ROC AUC", figure_text("roc_auc", gender["roc_auc"]), ""),
            ("calibration error", figure_text("ece", gender["ece"]), ""),
        ]
        classes = [
            (
                name,
                *(figure_text(key, value) for key, value in gender[name].items()),
                *map(str, gender["confusion"][name].values()),
            )
            for name in GENDERS
        ]
        called = [f"called {name}" for name in GENDERS]
        return [
            TextTable(("gender", "", "95% interval"), summary),
            TextTable(("true gender", "faces", "precision", "recall", "F1", *called), classes),
        ]

    def card_rows(self, metrics: Metrics) -> list[tuple[str, str]]:
        known = metrics["gender"]["accuracy"] is not None
        return [("gender", self.headline_text(metrics))] if known else []

    def headline_text(self, metrics: Metrics) -> str:
        interval = metrics["confidence_95"]["gender_accuracy"]
        return with_interval(metrics["gender"]["accuracy"], interval, "{:.1%}")

    def is_weak(self, part: Metrics, whole: Metrics) -> bool:
        return _share_wrong(part) > WEAK_GENDER * _share_wrong(whole)

    def class_of(self, faces: pa.StructArray) -> Floats:
        return numbers(pc.index_in(faces.field("gender"), pa.array(GENDERS)))

    def certainty_bin(self, faces: pa.StructArray) -> Floats:
        return (numbers(faces.field("gender_score")) - 0.5) * 2 * SCORE_BINS


GENDER = _GenderTask()


def gender_metrics(predictions: GenderPredictions) -> Metrics:
    """Figures of a classification in which a probability of 0.5 or more means female.

    Returns:
        count (of the faces with both, on which the figures stand), missing (those with a true
        gender alone), accuracy, roc_auc (of female), ece, confusion (true gender, then predicted
        one), and for each gender count, precision, recall, f1.
    """
    is_female, female = predictions.known()
    called = female >= 0.5
    missing = np.isin(predictions.true, GENDERS) & np.isnan(predictions.female)
    return {
        "count": len(female),
        "missing": int(missing.sum()),
        "accuracy": mean(called == is_female),
        "roc_auc": roc_auc(is_female, female),
        "ece": calibration_error(is_female, female),
        **_by_class(is_female, called),
    }


def _by_class(is_female: Mask, called: Mask) -> Metrics:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    keys = ("precision", "recall", "f1", "count")
    if len(called):
        options: dict[str, Any] = {"labels": [True, False]}
        confusion = confusion_matrix(is_female, called, **options)
        scores = precision_recall_fscore_support(is_female, called, **options, zero_division=np.nan)
    else:  # scikit-learn refuses empty arrays
        confusion, scores = np.zeros((2, 2), np.int64), np.full((4, 2), np.nan)
        scores[-1] = 0
    figures: Metrics = {
        "confusion": {
            name: dict(zip(GENDERS, row.tolist(), strict=True))
            for name, row in zip(GENDERS, confusion, strict=True)
        }
    }
    for number, name in enumerate(GENDERS):
        values = [None if np.isnan(of[number]) else float(of[number]) for of in scores]
        of_class = dict(zip(keys, values, strict=True))
        figures[name] = {"count": int(of_class.pop("count") or 0), **of_class}
    return figures


def _share_wrong(metrics: Metrics) -> float:
    accuracy = metrics["gender"]["accuracy"]
    return 0.0 if accuracy is None else 1 - accuracy
