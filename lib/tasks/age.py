"""The task age: 101 classes, 0 to 100 years, of which the expectation is the answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.tasks.age_bands import AGE_BANDS, age_band
from lib.tasks.age_metrics import Bands, age_errors, age_metrics, in_band, interval_coverage
from lib.tasks.age_targets import age_weights, smoothed_ages, spread_ages
from lib.tasks.calibration import (
    FEWEST_FACES,
    INTERVAL_COVERAGE,
    SCALE_AGES,
    IntervalScales,
    fit_interval_scales,
    scaled_interval,
)
from lib.tasks.expectation import (
    AGE_CLASSES,
    age_interval,
    distribution_sums,
    expected_age,
    mean_distributions,
)
from lib.tasks.task import (
    Column,
    Factor,
    Floats,
    Headline,
    Histogram,
    Metrics,
    Predictions,
    Task,
    TextTable,
    figure_text,
    interval_text,
    numbers,
    with_interval,
)

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.figure import Figure

Name = Literal["age"]

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
    "in_band": "inside their band",
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
        true: the true ages; of bands the middle.
        expected: the expected ages.
        argmax: the most likely ages; None: not known for any face.
        low, high: ends of the 80% interval; None: as above.
        sigma: standard deviation of what people said; None: as above.
        true_low, true_high: first and last whole year that the true age may be; None: all are exact.
    """

    true: Floats
    expected: Floats
    argmax: Floats | None = None
    low: Floats | None = None
    high: Floats | None = None
    sigma: Floats | None = None
    true_low: Floats | None = None
    true_high: Floats | None = None

    @property
    def bands(self) -> Bands | None:
        """The ends of the bands; None where all ages are exact."""
        if self.true_low is None or self.true_high is None:
            return None
        return (self.true_low, self.true_high) if (self.true_low < self.true_high).any() else None

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Which true ages are exact, (n,)."""
        if self.bands is None:
            return np.ones(len(self), bool)
        low, high = self.bands
        return low == high


class _Age(Task[AgePredictions]):
    name = "age"
    classes = AGE_CLASSES
    span_columns = ("age_low", "age_high")
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
    validation_formats: ClassVar = {
        "val_mae": "MAE {:.2f} years", "val_cs5": "CS@5 {:.1%}", "val_in_band": "in band {:.1%}",
    }  # fmt: skip
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

    def targets(
        self, indices: NDArray[np.int64], recipe: _Recipe, spans: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """An exact age, smoothed; a band, spread evenly over its years."""
        targets = smoothed_ages(indices, recipe.age_sigma)
        if spans is None:
            return targets
        banded = spans[:, 0] < spans[:, 1]
        targets[banded] = spread_ages(spans[banded])
        return targets

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
        self,
        probabilities: NDArray[np.float32],
        indices: NDArray[np.int64],
        spans: NDArray[np.int64] | None = None,
    ) -> dict[str, float]:
        bands = None if spans is None else (spans[:, 0].astype(float), spans[:, 1].astype(float))
        error = np.abs(age_errors(indices.astype(float), expected_age(probabilities).age, bands))
        sums = {"val_mae": float(error.sum()), "val_cs5": float((error <= CLOSE).sum())}
        return sums if bands is None else sums | {"val_in_band": float(in_band(error).sum())}

    def validation_error(self, figures: Mapping[str, float]) -> float:
        return figures["val_mae"]

    def label(
        self, probabilities: NDArray[np.float32], labels: Sequence[str], factor: Factor
    ) -> dict[str, Any]:
        age, std = expected_age(probabilities)
        low, high = scaled_interval(IntervalScales.of(factor), age, *age_interval(probabilities))
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
            sigma=_welcome(truth, "sigma"),
            true_low=_welcome(truth, "age_low"),
            true_high=_welcome(truth, "age_high"),
        )

    def read_factor(self, value: Any) -> Factor:
        """The rows of `IntervalScales`; in cards of earlier versions one row, or one number."""
        if not isinstance(value, Sequence):
            return float(value)
        rows = value if all(isinstance(row, Sequence) for row in value) else [value]
        if len(rows) not in (1, 3) or {len(row) for row in rows} != {len(SCALE_AGES)}:
            raise ValueError(
                f"{self.factor} must be one or three rows of {len(SCALE_AGES)} numbers"
            )
        return IntervalScales.of(tuple(tuple(map(float, row)) for row in rows))

    def calibrate(self, predictions: AgePredictions) -> Factor:
        p = predictions
        assert p.low is not None
        assert p.high is not None
        known = ~np.isnan(p.expected) & p.exact
        # Inside a band nobody knows the age, so that bands cannot tell how wide an interval must be.
        if not known.any() or (p.bands is not None and known.sum() < FEWEST_FACES):
            return 1.0
        return fit_interval_scales(p.true[known], p.expected[known], p.low[known], p.high[known])

    def figures(self, predictions: AgePredictions) -> Metrics:
        p = predictions
        figures = age_metrics(p.true, p.expected, p.sigma, p.bands)
        if p.low is not None and p.high is not None:
            exact = p.where(p.exact)
            assert exact.low is not None
            assert exact.high is not None
            figures["interval_coverage"] = interval_coverage(exact.true, exact.low, exact.high)
            figures["interval_coverage_by_expected_age"] = coverage_by_expected_age(exact)
        argmax = None if p.argmax is None else age_metrics(p.true, p.argmax, p.sigma, p.bands)
        return {"age": figures, "age_argmax": argmax}

    def headlines(self, predictions: AgePredictions) -> dict[str, Headline]:
        p = predictions
        error = age_errors(p.true, p.expected, p.bands)
        error = error[~np.isnan(error)]
        headlines = {
            "age_mae": Headline(np.abs(error)),
            "age_rmse": Headline(error**2, root=True),
            "age_bias": Headline(error),
            "age_cs5": Headline((np.abs(error) <= CLOSE).astype(np.float64)),
        }
        if p.bands is not None:
            headlines["age_in_band"] = Headline(in_band(error).astype(np.float64))
        return headlines

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
        tables = [TextTable(("age in years", "expected", "95% interval", "arg max"), rows)]
        if by_band := age.get("interval_coverage_by_expected_age"):
            covered = [
                (band, str(part["count"]), figure_text("coverage", part["coverage"]))
                for band, part in by_band.items()
            ]
            tables.append(TextTable(("by expected age", "faces", "in interval"), covered))
        return tables

    def card_rows(self, metrics: Metrics) -> list[tuple[str, str]]:
        age, intervals = metrics["age"], metrics["confidence_95"]
        if age["mae"] is None:
            return []
        constant = f"saying the median age always: {age['median_predictor_mae']:.2f}"
        mae = f"{self.headline_text(metrics)} years; {constant}"
        cs5 = with_interval(age["cs5"], intervals["age_cs5"], "{:.1%}")
        coverage = with_interval(age["interval_coverage"], None, "{:.1%}")
        if age.get("in_band") is None:
            rows = [("age, mean absolute error", mae), ("age within 5 years", cs5)]
        else:
            right = with_interval(age["in_band"], intervals["age_in_band"], "{:.1%}")
            rows = [
                ("age inside the true band", right),
                ("age, mean distance from the true band", mae),
                ("age within 5 years of the true band", cs5),
            ]
        rows.append(("age inside the 80% interval", coverage))
        by_expected = age.get("interval_coverage_by_expected_age", {})
        by_true = metrics.get(self.groups_key, {})
        for title, shares in (
            ("expected", {band: part["coverage"] for band, part in by_expected.items()}),
            ("true", {band: part["age"]["interval_coverage"] for band, part in by_true.items()}),
        ):
            if text := ", ".join(f"{b}: {of:.0%}" for b, of in shares.items() if of is not None):
                rows.append((f"the same by {title} age", text))
        return rows

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


def coverage_by_expected_age(predictions: AgePredictions) -> dict[str, Metrics]:
    """By band of the expected age: faces with an interval, and the share of true ages inside theirs."""
    p = predictions
    assert p.low is not None
    assert p.high is not None
    bands = age_band(p.expected)
    bands[np.isnan(p.true + p.low + p.high)] = None
    return {
        band: {
            "count": int((bands == band).sum()),
            "coverage": interval_coverage(*(a[bands == band] for a in (p.true, p.low, p.high))),
        }
        for band in AGE_BANDS
        if (bands == band).any()
    }


def age_distributions(labels: pa.Table) -> NDArray[np.float32] | None:
    """The distributions of the ages: float32 (n, 101), NaN for rows without; None: no such column."""
    if AGE_DISTRIBUTION.name not in labels.column_names:
        return None
    column = labels[AGE_DISTRIBUTION.name].combine_chunks()
    distributions = np.full((len(column), AGE_CLASSES), np.nan, np.float32)
    given = column.is_valid().to_numpy(zero_copy_only=False)
    distributions[given] = column.flatten().to_numpy().reshape(-1, AGE_CLASSES)
    return distributions


def _welcome(truth: pa.Table, column: str) -> Floats | None:
    return numbers(truth[column]) if column in truth.column_names else None


def _argmax(distributions: NDArray[np.float32]) -> Floats:
    likeliest = distributions.argmax(axis=1).astype(np.float64)
    return np.where(np.isnan(distributions[:, 0]), np.nan, likeliest)
