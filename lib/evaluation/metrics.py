"""How good predictions of age and gender are.

Every figure is None where it is undefined, such as the mean of nothing; no figure is NaN.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from lib.datasets.labels import GENDERS
from lib.models.calibration import INTERVAL_COVERAGE, Floats, Mask

Metrics = dict[str, Any]

AGE_BANDS = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
_BAND_STARTS = (0, 3, 10, 20, 30, 40, 50, 60, 70)

CUMULATIVE_SCORES = (3, 5, 10)
"""In years."""
RELIABILITY_BINS = 10

_BOOTSTRAP_BLOCK = 1 << 20  # values drawn at once, which bounds the memory


@dataclass(frozen=True)
class Predictions:
    """The truth about n faces, and what a model says about them; NaN and None mean unknown.

    Attributes:
        true_age: (n,) float64, in years.
        true_gender: (n,) object, "female", "male" or None.
        age: (n,) float64, expected age in years; NaN where the model gave none.
        female: (n,) float64, probability of female in 0..1; NaN where the model gave none.
        age_argmax: (n,) float64, most likely age in years; None: not known for any face.
        age_low, age_high: (n,) float64, ends of the 80% interval in years; None: as above.
        sigma: (n,) float64, standard deviation in years of what people said; None: as above.
        group: (n,) object, strings or None; None: no groups.
    """

    true_age: Floats
    true_gender: NDArray[np.object_]
    age: Floats
    female: Floats
    age_argmax: Floats | None = None
    age_low: Floats | None = None
    age_high: Floats | None = None
    sigma: Floats | None = None
    group: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.true_age)

    def where(self, mask: Mask) -> "Predictions":
        """Only the faces for which the mask, (n,) bool, is true."""
        columns: dict[str, Any] = {
            name: None if column is None else column[mask] for name, column in vars(self).items()
        }
        return Predictions(**columns)


class RocCurve(NamedTuple):
    """Points of the curve, float64 (m,) each, from (0, 0) to (1, 1), thresholds descending."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    thresholds: Floats


class Reliability(NamedTuple):
    """Predicted against observed shares in bins of equal width over 0..1; NaN in empty bins."""

    faces: NDArray[np.int64]
    predicted: Floats
    observed: Floats


def evaluate(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> Metrics:
    """Compute all figures.

    Args:
        predictions: of n faces.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Numbers, strings, None and nested dictionaries of them, ready for JSON: `count`; `age`,
        `age_argmax` and `gender` (see `age_metrics` and `gender_metrics`), and `confidence_95`,
        intervals of the headline figures; the same by age band of the true age, by true gender and
        by group.
    """
    bands = age_band(predictions.true_age)
    groups = predictions.group if predictions.group is not None else np.array([])
    group_names = sorted({group for group in groups if group is not None})

    def figures(part: Predictions) -> Metrics:
        return {**_figures(part), "confidence_95": _headline_intervals(part, resamples, seed)}

    def breakdown(labels: NDArray[np.object_], names: Iterable[str]) -> dict[str, Metrics]:
        return {name: figures(predictions.where(labels == name)) for name in names}

    return {
        **figures(predictions),
        "by_age_band": breakdown(bands, AGE_BANDS),
        "by_gender": breakdown(predictions.true_gender, GENDERS),
        "by_group": breakdown(groups, group_names),
    }


def _figures(predictions: Predictions) -> Metrics:
    p = predictions
    age = age_metrics(p.true_age, p.age, p.sigma)
    if p.age_low is not None and p.age_high is not None:
        age["interval_coverage"] = interval_coverage(p.true_age, p.age_low, p.age_high)
    return {
        "count": len(p),
        "age": age,
        "age_argmax": (
            None if p.age_argmax is None else age_metrics(p.true_age, p.age_argmax, p.sigma)
        ),
        "gender": gender_metrics(p.true_gender, p.female),
    }


def _headline_intervals(
    predictions: Predictions, resamples: int, seed: int
) -> dict[str, list[float] | None]:
    p = predictions
    error = p.age - p.true_age
    error = error[~np.isnan(error)]
    known = _known_gender(p.true_gender, p.female)
    correct = (p.female >= 0.5)[known] == (p.true_gender[known] == "female")

    def interval(values: NDArray) -> list[float] | None:
        return bootstrap_interval(values, resamples, seed)

    squared = interval(error**2)
    return {
        "age_mae": interval(np.abs(error)),
        "age_rmse": None if squared is None else [float(end) for end in np.sqrt(squared)],
        "age_bias": interval(error),
        "age_cs5": interval(np.abs(error) <= 5),
        "gender_accuracy": interval(correct),
    }


def age_band(true_age: ArrayLike) -> NDArray[np.object_]:
    """Name the band of `AGE_BANDS` of each age.

    Args:
        true_age: (n,) in years.

    Returns:
        (n,) strings; None for ages below 0 and NaN.
    """
    age = np.asarray(true_age, np.float64)
    names = np.array([*AGE_BANDS, None], dtype=object)
    band = np.searchsorted(_BAND_STARTS, age, side="right") - 1
    return names[np.where(age >= 0, band, len(AGE_BANDS))]


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
    mean_square = _mean(error**2)
    return {
        "count": int(known.sum()),
        "missing": int((~np.isnan(true_age) & np.isnan(age)).sum()),
        "mae": _mean(np.abs(error)),
        "rmse": None if mean_square is None else mean_square**0.5,
        "bias": _mean(error),
        **{f"cs{years}": _mean(np.abs(error) <= years) for years in CUMULATIVE_SCORES},
        "epsilon_error": (
            None if sigma is None else epsilon_error(truth, age[known], sigma[known])
        ),
        "median_predictor_mae": _mean(np.abs(truth - np.median(truth))) if len(truth) else None,
    }


def epsilon_error(mean: Floats, age: Floats, sigma: Floats) -> float | None:
    """Mean of 1 - exp(-(age - mean)² / 2σ²), the error of ChaLearn LAP 2015 (Escalera et al.).

    Args:
        mean: (n,) the mean age that people gave, in years.
        age: (n,) predictions in years.
        sigma: (n,) standard deviation of what people gave; 0: they agreed; NaN: left out.
    """
    given = ~np.isnan(sigma)
    spread = np.maximum(sigma[given], 1e-9)
    return _mean(1 - np.exp(-(((age[given] - mean[given]) / spread) ** 2) / 2))


def interval_coverage(true_age: Floats, low: Floats, high: Floats) -> float | None:
    """Share of the true ages inside their intervals; all (n,), in years; NaN: left out."""
    known = ~np.isnan(true_age + low + high)
    return _mean(((low <= true_age) & (true_age <= high))[known])


def gender_metrics(true_gender: NDArray[np.object_], female: Floats) -> Metrics:
    """Figures of a classification in which a probability of 0.5 or more means female.

    Args:
        true_gender: (n,) "female", "male", or None: unknown.
        female: (n,) probabilities of female; NaN: none.

    Returns:
        count (of the faces with both, on which the figures stand), missing (those with a true
        gender alone), accuracy, roc_auc (of female), ece, confusion (true gender, then predicted
        one), and for each gender count, precision, recall, f1.
    """
    known = _known_gender(true_gender, female)
    is_female = true_gender[known] == "female"
    probability = female[known]
    called_female = probability >= 0.5
    confusion = {
        "female": _counts(called_female[is_female]),
        "male": _counts(called_female[~is_female]),
    }
    return {
        "count": int(known.sum()),
        "missing": int((np.isin(true_gender, GENDERS) & np.isnan(female)).sum()),
        "accuracy": _mean(called_female == is_female),
        "roc_auc": roc_auc(is_female, probability),
        "ece": calibration_error(is_female, probability),
        "confusion": confusion,
        "female": _class_metrics(confusion, "female", "male"),
        "male": _class_metrics(confusion, "male", "female"),
    }


def _known_gender(true_gender: NDArray[np.object_], female: Floats) -> Mask:
    return np.isin(true_gender, GENDERS) & ~np.isnan(female)


def _counts(called_female: Mask) -> dict[str, int]:
    females = int(called_female.sum())
    return {"female": females, "male": len(called_female) - females}


def _class_metrics(confusion: Mapping[str, Mapping[str, int]], of: str, other: str) -> Metrics:
    hits = confusion[of][of]
    there, called = sum(confusion[of].values()), hits + confusion[other][of]
    return {
        "count": there,
        "precision": _ratio(hits, called),
        "recall": _ratio(hits, there),
        "f1": _ratio(2 * hits, there + called),
    }


def roc_curve(positive: Mask, score: Floats) -> RocCurve:
    """Rates at each distinct score as a threshold; NaN where a class is absent.

    Args:
        positive: (n,) bool.
        score: (n,) the higher, the likelier positive.
    """
    order = np.argsort(-score, kind="stable")
    score, positive = score[order], positive[order]
    last_of_equals = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)[: len(score)]
    hits = np.append(0, np.cumsum(positive)[last_of_equals])
    false_alarms = np.append(0, np.cumsum(~positive)[last_of_equals])
    with np.errstate(invalid="ignore"):
        return RocCurve(
            false_alarms / np.float64((~positive).sum()),
            hits / np.float64(positive.sum()),
            np.append(np.inf, score[last_of_equals]),
        )


def roc_auc(positive: Mask, score: Floats) -> float | None:
    """Area under the ROC curve: the probability that a positive scores above a negative.

    Mann and Whitney's U over all pairs, ties counted by half; arguments as for `roc_curve`.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    u = rankdata(score)[positive].sum() - positives * (positives + 1) / 2
    return _ratio(u, positives * negatives)


def reliability(positive: Mask, probability: Floats, bins: int = RELIABILITY_BINS) -> Reliability:
    """Compare the mean predicted probability with the observed share, bin by bin.

    Args:
        positive: (n,) bool.
        probability: (n,) of positive, in 0..1.
        bins: of equal width, each with its lower end, the last with both ends.
    """
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    faces = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            faces,
            np.bincount(bin_of, probability, bins) / faces,
            np.bincount(bin_of, positive, bins) / faces,
        )


def calibration_error(positive: Mask, probability: Floats) -> float | None:
    """Expected calibration error over the bins of `reliability`, weighted by their faces.

    Naeini, Cooper and Hauskrecht, AAAI 2015, equation 3. The bins are over the probability of
    positive in 0..1, not over that of the likelier class.
    """
    faces, predicted, observed = reliability(positive, probability)
    return _ratio(float(np.nansum(faces * np.abs(predicted - observed))), len(positive))


def mean_distributions(true_age: Floats, distributions: Floats) -> Floats:
    """Average the predicted distributions of the faces of each age.

    Args:
        true_age: (n,) in years; rows that are not whole ages from 0 to c - 1 are left out.
        distributions: (n, c) probabilities of the ages 0 to c - 1.

    Returns:
        (c, c) float64: row a is the mean distribution of the faces aged a; NaN where there is none.
    """
    classes = distributions.shape[1]
    usable = np.isin(true_age, np.arange(classes))
    age = true_age[usable].astype(np.int64)
    sums = np.zeros((classes, classes))
    np.add.at(sums, age, distributions[usable])
    with np.errstate(invalid="ignore"):
        return sums / np.bincount(age, minlength=classes)[:, None]


def bootstrap_interval(
    values: ArrayLike, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[float] | None:
    """Give the percentile bootstrap interval of a mean (Efron 1979): lower and upper end.

    Args:
        values: (n,) numbers; None comes back for none.
        resamples: how many samples of n are drawn.
        seed: the same one gives the same interval.
        level: of confidence, between 0 and 1.
    """
    sample = np.asarray(values, np.float64)
    if not len(sample):
        return None
    rng = np.random.default_rng(seed)
    rows = max(1, _BOOTSTRAP_BLOCK // len(sample))
    means = [
        sample[rng.integers(len(sample), size=(min(rows, resamples - done), len(sample)))].mean(1)
        for done in range(0, resamples, rows)
    ]
    tail = (1 - level) / 2
    return [float(end) for end in np.quantile(np.concatenate(means), (tail, 1 - tail))]


def _mean(values: NDArray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def as_table(metrics: Metrics) -> str:
    """Lay out what `evaluate` returns as text to read in a terminal."""
    parts = [_age_table(metrics), _gender_table(metrics)]
    for title, key in (("age", "by_age_band"), ("gender", "by_gender"), ("group", "by_group")):
        if metrics[key]:
            parts.append(_breakdown_table(f"by {title}", metrics[key]))
    return "\n\n".join(parts)


_AGE_TITLES = {
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
_FORMATS = dict.fromkeys(("mae", "rmse", "bias", "median_predictor_mae"), "{:.2f}") | dict.fromkeys(
    ("epsilon_error", "roc_auc", "ece"), "{:.4f}"
)


def _age_table(metrics: Metrics) -> str:
    age, argmax, intervals = metrics["age"], metrics["age_argmax"] or {}, metrics["confidence_95"]
    rows = [
        [
            title,
            _text(key, age.get(key)),
            _interval_text(key, intervals.get(f"age_{key}")),
            _text(key, argmax.get(key)),
        ]
        for key, title in _AGE_TITLES.items()
    ]
    return _aligned([["age in years", "expected", "95% interval", "arg max"], *rows])


def _gender_table(metrics: Metrics) -> str:
    gender = metrics["gender"]
    summary = [
        ["gender", "", "95% interval"],
        ["faces", str(gender["count"])],
        ["without a prediction", str(gender["missing"])],
        [
            "accuracy",
            _text("accuracy", gender["accuracy"]),
            _interval_text("accuracy", metrics["confidence_95"]["gender_accuracy"]),
        ],
        ["ROC AUC", _text("roc_auc", gender["roc_auc"])],
        ["calibration error", _text("ece", gender["ece"])],
    ]
    classes = [
        ["true gender", "faces", "precision", "recall", "F1", "called female", "called male"]
    ]
    for name in GENDERS:
        figures = [_text(key, value) for key, value in gender[name].items()]
        classes.append([name, *figures, *map(str, gender["confusion"][name].values())])
    return f"{_aligned(summary)}\n\n{_aligned(classes)}"


def _breakdown_table(title: str, breakdown: Mapping[str, Metrics]) -> str:
    columns = {
        "error": ("age", "mae"),
        "bias": ("age", "bias"),
        "within 5": ("age", "cs5"),
        "in interval": ("age", "interval_coverage"),
        "gender accuracy": ("gender", "accuracy"),
        "ROC AUC": ("gender", "roc_auc"),
    }
    rows = [
        [name, str(part["count"]), *(_text(key, part[of].get(key)) for of, key in columns.values())]
        for name, part in breakdown.items()
    ]
    return _aligned([[title, "faces", *columns], *rows])


def _text(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else _FORMATS.get(key, "{:.1%}").format(value)


def _interval_text(key: str, interval: list[float] | None) -> str:
    return "" if interval is None else " to ".join(_text(key, end) for end in interval)


def _aligned(rows: list[list[str]]) -> str:
    """Columns of equal width, the first to the left and the others to the right."""
    widths = [max(map(len, cells)) for cells in zip_longest(*rows, fillvalue="")]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    )
