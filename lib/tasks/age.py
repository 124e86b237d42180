"""The task age: 101 classes, 0 to 100 years, of which the expectation is the answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.tasks.age_bands import AGE_BANDS, age_band
from lib.tasks.calibration import INTERVAL_COVERAGE, fit_interval_scale
from lib.tasks.expectation import (
    AGE_CLASSES,
    age_interval,
    distribution_sums,
    expected_age,
    mean_distributions,
)
from lib.tasks.task import (
    Column,
    Floats,
    Headline,
    Histogram,
    Metrics,
    Predictions,
    Task,
    TextTable,
    figure_text,
    interval_text,
    mean,
    numbers,
    with_interval,
)

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.figure import Figure

Name = Literal["age"]

CUMULATIVE_SCORES = (3, 5, 10)
"""In years."""
CLOSE = 5.0
"""Years, for CS@5."""
STD_STEP, STD_BINS = 0.5, 61
"""A report counts standard deviations in steps of half a year; 30 years and above together."""
WEAK_ERROR = 1.25
"""A part is weak where the error in years is that many times the whole's."""
CLASS_SEPARATION = "class_separation"
"""Name of the plot of mean predicted distributions."""
AGE_DISTRIBUTION = Column(
    "age_distribution", pa.list_(pa.float32()), "probability of each age from 0 to 100 (on request)"
)

_TITLES = {
    "count": "faces",
    "missing": "without a prediction",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "bias": "bias",
    "cs3": "within 3 years",
    "cs5": "within 5 years",
    "cs10": "within 10 years",
    "epsilon_error": "epsilon error",
    "interval_coverage": f"inside the {INTERVAL_COVERAGE:.0%} interval",
    "median_predictor_mae": "error of the median age",
}


class _Recipe(Protocol):
    """The options of training that concern ages."""

    age_sigma: float
    expectation_weight: float
    age_reweighting: float


@dataclass(frozen=True)
class AgePredictions(Predictions):
    """Ages of n faces, float64 (n,), in years; NaN: unknown.

    Attributes:
        true: the true ages.
        expected: the expected ages.
        argmax: the most likely ages; None: not known for any face.
        low, high: ends of the 80% interval; None: as above.
        sigma: standard deviation of what people said; None: as above.
    """

    true: Floats
    expected: Floats
    argmax: Floats | None = None
    low: Floats | None = None
    high: Floats | None = None
    sigma: Floats | None = None


class _Age(Task[AgePredictions]):
    name = "age"
    classes = AGE_CLASSES
    factor = "age_interval_scale"
    columns = (
        Column("age", pa.float32(), "expected age in years: the sum of probability times class"),
        Column("age_std", pa.float32(), "standard deviation of the age's distribution, in years"),
        Column("age_low", pa.float32(), "lower end of the 80% interval of the age, in years"),
        Column("age_high", pa.float32(), "upper end of the 80% interval of the age, in years"),
    )
    optional_columns = (AGE_DISTRIBUTION,)
    evaluated_columns = ("age", "age_low", "age_high")
    headline_title = "mean absolute error, years"
    groups_key = "by_age_band"
    groups = AGE_BANDS
    group_figures: ClassVar = {
        "error": "mae", "bias": "bias", "within 5": "cs5", "in interval": "interval_coverage",
    }  # fmt: skip
    validation_formats: ClassVar = {"val_mae": "MAE {:.2f} years", "val_cs5": "CS@5 {:.1%}"}
    ordered = True
    histogram = Histogram(
        "Age: uncertainty, years",
        np.arange(STD_BINS + 1, dtype=np.float64) * STD_STEP,
        "{:g}",
        "{share:.0%} of the faces have an age with a standard deviation of at least {edge} years.",
        10,
    )
    introduction = "age in 101 classes, 0 to 100 years, of which the expectation is the answer"

    def class_indices(self, truth: NDArray[Any]) -> NDArray[np.int64]:
        possible = (truth >= 0) & (truth < AGE_CLASSES)
        return np.where(possible, truth, -1).astype(np.int64)

    def targets(self, indices: NDArray[np.int64], recipe: _Recipe) -> NDArray[np.float32]:
        return smoothed_ages(indices, recipe.age_sigma)

    def loss(
        self, targets: "tf.Tensor", probabilities: "tf.Tensor", recipe: _Recipe
    ) -> "tf.Tensor":
        """Cross entropy, plus the distance in years of the two expectations, weighted in nats a year."""
        import tensorflow as tf

        entropy = -tf.reduce_sum(targets * tf.math.log(probabilities + 1e-7), axis=1)
        years = tf.range(AGE_CLASSES, dtype=tf.float32)
        distance = tf.abs(tf.linalg.matvec(probabilities - targets, years))
        return entropy + recipe.expectation_weight * distance

    def face_weights(self, indices: NDArray[np.int64], recipe: _Recipe) -> NDArray[np.float32]:
        return age_weights(indices, recipe.age_reweighting)

    def validation_sums(
        self, probabilities: NDArray[np.float32], indices: NDArray[np.int64]
    ) -> dict[str, float]:
        error = np.abs(expected_age(probabilities).age - indices)
        return {"val_mae": float(error.sum()), "val_cs5": float((error <= CLOSE).sum())}

    def validation_error(self, figures: Mapping[str, float]) -> float:
        return figures["val_mae"]

    def label(
        self, probabilities: NDArray[np.float32], labels: Sequence[str], factor: float
    ) -> dict[str, Any]:
        age, std = expected_age(probabilities)
        low, high = age_interval(probabilities, scale=factor)
        unknown = pa.array(np.isnan(probabilities[:, 0]))
        distributions = pa.FixedSizeListArray.from_arrays(
            probabilities.ravel(), AGE_CLASSES, mask=unknown
        )
        names = [column.name for column in (*self.columns, AGE_DISTRIBUTION)]
        return dict(zip(names, (age, std, low, high, distributions), strict=True))

    def words(self, face: Mapping[str, Any]) -> str:
        return "" if face["age"] is None else f"{face['age']:.0f} ± {face['age_std']:.0f}"

    def predictions(self, truth: pa.Table, labels: pa.Table) -> AgePredictions:
        distributions = age_distributions(labels)
        return AgePredictions(
            true=numbers(truth["age"]),
            expected=numbers(labels["age"]),
            argmax=None if distributions is None else _argmax(distributions),
            low=numbers(labels["age_low"]),
            high=numbers(labels["age_high"]),
            sigma=numbers(truth["sigma"]) if "sigma" in truth.column_names else None,
        )

    def calibrate(self, predictions: AgePredictions) -> float:
        p = predictions
        assert p.low is not None
        assert p.high is not None
        known = ~np.isnan(p.expected)
        if not known.any():
            return 1.0
        return fit_interval_scale(p.true[known], p.expected[known], p.low[known], p.high[known])

    def figures(self, predictions: AgePredictions) -> Metrics:
        p = predictions
        figures = age_metrics(p.true, p.expected, p.sigma)
        if p.low is not None and p.high is not None:
            figures["interval_coverage"] = interval_coverage(p.true, p.low, p.high)
        argmax = None if p.argmax is None else age_metrics(p.true, p.argmax, p.sigma)
        return {"age": figures, "age_argmax": argmax}

    def headlines(self, predictions: AgePredictions) -> dict[str, Headline]:
        error = predictions.expected - predictions.true
        error = error[~np.isnan(error)]
        return {
            "age_mae": Headline(np.abs(error)),
            "age_rmse": Headline(error**2, root=True),
            "age_bias": Headline(error),
            "age_cs5": Headline((np.abs(error) <= CLOSE).astype(np.float64)),
        }

    def group_of(self, predictions: AgePredictions) -> NDArray[np.object_]:
        return age_band(predictions.true)

    def plots(
        self, predictions: AgePredictions, labels: pa.Table
    ) -> "Iterator[tuple[str, Figure]]":
        from lib.tasks import plots

        p = predictions
        yield "true_against_predicted", plots.true_against_predicted(p.true, p.expected)
        yield "error_by_age_band", plots.error_by_age_band(p.true, p.expected)
        if (distributions := age_distributions(labels)) is not None:
            given = ~np.isnan(distributions[:, 0])
            # A fractional age, such as the mean of what people said, counts for the nearest class.
            nearest = np.rint(p.true[given])
            sums = distribution_sums(distributions[given], nearest)
            yield CLASS_SEPARATION, plots.class_separation(mean_distributions(sums))

    def tables(self, metrics: Metrics) -> list[TextTable]:
        age, argmax = metrics["age"], metrics["age_argmax"] or {}
        intervals = metrics["confidence_95"]
        rows = [
            (
                title,
                figure_text(key, age.get(key)),
                interval_text(key, intervals.get(f"age_{key}")),
                figure_text(key, argmax.get(key)),
            )
            for key, title in _TITLES.items()
        ]
        return [TextTable(("age in years", "expected", "95% interval", "arg max"), rows)]

    def card_rows(self, metrics: Metrics) -> list[tuple[str, str]]:
        age, intervals = metrics["age"], metrics["confidence_95"]
        if age["mae"] is None:
            return []
        constant = f"saying the median age always: {age['median_predictor_mae']:.2f}"
        return [
            ("age, mean absolute error", f"{self.headline_text(metrics)} years; {constant}"),
            ("age within 5 years", with_interval(age["cs5"], intervals["age_cs5"], "{:.1%}")),
            ("age inside the 80% interval", f"{age['interval_coverage']:.1%}"),
        ]

    def headline_text(self, metrics: Metrics) -> str:
        return with_interval(metrics["age"]["mae"], metrics["confidence_95"]["age_mae"], "{:.2f}")

    def is_weak(self, part: Metrics, whole: Metrics) -> bool:
        return (part["age"]["mae"] or 0) > WEAK_ERROR * (whole["age"]["mae"] or 0)

    def class_of(self, faces: pa.StructArray) -> Floats:
        return numbers(faces.field("age"))

    def certainty_bin(self, faces: pa.StructArray) -> Floats:
        return np.rint(numbers(faces.field("age_std")) / STD_STEP)

    def band_of(self, row: Mapping[str, Any]) -> str:
        """The age band of a label row's main face; empty where it has no age."""
        return "" if row["age"] is None else age_band([row["age"]])[0]

    def order_of(self, row: Mapping[str, Any]) -> tuple[bool, float]:
        """Sort key of a label row: by the main face's age, rows without one last."""
        return row["age"] is None, row["age"] or 0


AGE = _Age()


def smoothed_ages(ages: NDArray[np.integer], sigma: float) -> NDArray[np.float32]:
    """Spread each age over its neighbours with a Gaussian: a year off is less wrong than thirty.

    Label distribution smoothing: Geng, Yin and Zhou, TPAMI 2013.

    Args:
        ages: (n,) whole years in 0..100.
        sigma: standard deviation in years, above 0.

    Returns:
        (n, 101) float32; every row sums to one.
    """
    distance = (
        np.arange(AGE_CLASSES, dtype=np.float32)[None] - np.asarray(ages, np.float32)[:, None]
    )
    weight = np.exp(-0.5 * (distance / sigma) ** 2)
    return weight / weight.sum(axis=1, keepdims=True)


def age_weights(ages: NDArray[np.integer], power: float) -> NDArray[np.float32]:
    """How much each face counts, so that rare ages are not forgotten; 1 on average.

    The frequency of an age is that of the smoothed distribution, so that an age which happens to
    have one face less than its neighbours is not made up for.

    Args:
        ages: (n,) whole years in 0..100.
        power: of the inverse frequency; 0: all count the same, 1: all ages do.
    """
    counts = np.bincount(ages, minlength=AGE_CLASSES).astype(np.float32)
    frequency = counts @ smoothed_ages(np.arange(AGE_CLASSES), 2.0)
    weights = frequency[ages] ** -power
    return (weights / weights.mean()).astype(np.float32)


def age_metrics(true_age: Floats, age: Floats, sigma: Floats | None = None) -> Metrics:
    """Errors of ages in years.

    Args:
        true_age: (n,) NaN: unknown.
        age: (n,) predictions; NaN: none.
        sigma: (n,) as in `epsilon_error`.

    Returns:
        count (of the faces with both ages, on which the figures stand), missing (those with a true
        age alone), mae, rmse, bias (positive: too old), cs3, cs5, cs10 (cumulative score: the share
        of errors of at most so many years), epsilon_error, and median_predictor_mae: the MAE of the
        best constant prediction, the median of these true ages, as a floor to compare with.
    """
    known = ~np.isnan(true_age) & ~np.isnan(age)
    truth = true_age[known]
    error = age[known] - truth
    mean_square = mean(error**2)
    return {
        "count": int(known.sum()),
        "missing": int((~np.isnan(true_age) & np.isnan(age)).sum()),
        "mae": mean(np.abs(error)),
        "rmse": None if mean_square is None else mean_square**0.5,
        "bias": mean(error),
        **{f"cs{years}": mean(np.abs(error) <= years) for years in CUMULATIVE_SCORES},
        "epsilon_error": (
            None if sigma is None else epsilon_error(truth, age[known], sigma[known])
        ),
        "median_predictor_mae": mean(np.abs(truth - np.median(truth))) if len(truth) else None,
    }


def epsilon_error(mean_age: Floats, age: Floats, sigma: Floats) -> float | None:
    """Mean of 1 - exp(-(age - mean)² / 2σ²), the error of ChaLearn LAP 2015 (Escalera et al.).

    Args:
        mean_age: (n,) the mean age that people gave, in years.
        age: (n,) predictions in years.
        sigma: (n,) standard deviation of what people gave; 0: they agreed; NaN: left out.
    """
    given = ~np.isnan(sigma)
    spread = np.maximum(sigma[given], 1e-9)
    return mean(1 - np.exp(-(((age[given] - mean_age[given]) / spread) ** 2) / 2))


def interval_coverage(true_age: Floats, low: Floats, high: Floats) -> float | None:
    """Share of the true ages inside their intervals; all (n,), in years; NaN: left out."""
    known = ~np.isnan(true_age + low + high)
    return mean(((low <= true_age) & (true_age <= high))[known])


def age_distributions(labels: pa.Table) -> NDArray[np.float32] | None:
    """The distributions of the ages: float32 (n, 101), NaN for rows without; None: no such column."""
    if AGE_DISTRIBUTION.name not in labels.column_names:
        return None
    column = labels[AGE_DISTRIBUTION.name].combine_chunks()
    distributions = np.full((len(column), AGE_CLASSES), np.nan, np.float32)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    distributions[given] = column.flatten().to_numpy().reshape(-1, AGE_CLASSES)
    return distributions


def _argmax(distributions: NDArray[np.float32]) -> Floats:
    likeliest = distributions.argmax(axis=1).astype(np.float64)
    return np.where(np.isnan(distributions[:, 0]), np.nan, likeliest)
