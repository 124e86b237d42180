"""What a task is: one question about a face, answered by the probabilities of classes.

Everything that is special about a task stands in its module: classes and their labels, targets and
loss of training, columns of the label row, figures and plots of an evaluation, words in card and
report. The rest of the code loops over `lib.tasks.TASKS`.

Importing this imports neither TensorFlow nor matplotlib nor scikit-learn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Factor = float | tuple[tuple[float, ...], ...]
"""Of a calibration: one number, or several rows of them that the task explains."""
Metrics = dict[str, Any]
"""Figures by name: numbers, strings, None where a figure is undefined, and dictionaries of them."""


class Column(NamedTuple):
    """One column of the label row."""

    name: str
    type: pa.DataType
    meaning: str


class Headline(NamedTuple):
    """A figure that gets a confidence interval.

    Attributes:
        values: (n,) float64; the figure is their mean.
        root: whether it is the square root of that mean.
    """

    values: Floats
    root: bool = False


class TextTable(NamedTuple):
    """A table for a terminal: the column titles, and rows of as many cells, the first one a name."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Histogram(NamedTuple):
    """How sure labels are, as a chart of a report.

    Attributes:
        title: of the chart.
        edges: (bins + 1,) float64, ends of the bins.
        number: format of an edge.
        sentence: with the fields `share` and `edge`.
        edge: at which the sentence divides the faces.
    """

    title: str
    edges: Floats
    number: str
    sentence: str
    edge: float


@dataclass(frozen=True)
class Predictions:
    """Columns about n faces: the truth and what a model says; each (n,), or None if it is not known."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def where(self, mask: Mask) -> Self:
        """Only the faces for which the mask, (n,) bool, is true."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{n: None if c is None else c[mask] for n, c in columns.items()})


P = TypeVar("P", bound=Predictions)


class Task(Protocol[P]):
    """One question about a face.

    Below, n faces have `indices`, int64 (n,), of their true classes, and float32 (n, classes)
    `targets` and `probabilities`; `spans`, int64 (n, 2), are the first and the last class that may be
    true, where labels are bands (None: the indices are exact); `recipe` is
    `lib.training.recipe.Recipe`; `metrics` are those of `lib.evaluation.metrics.evaluate`, of all faces
    or of a group.

    Attributes:
        name: of the task, of its network in a bundle, and of its column in labelled data.
        classes: outputs of its network.
        labels: what the classes mean, in order, where they are names; empty where they are numbers.
        ordered: whether neighbouring classes are alike, so that their confusion is worth a plot.
        span_columns: of labelled faces, with the first and the last value that a label may be; None: all
            labels are exact.
        factor: name of its calibration factor; 1 leaves probabilities as they are.
        columns: of the label row.
        optional_columns: of the label row, on request.
        evaluated_columns: those that an evaluation needs.
        introduction: what a model answers, in words.
        validation_formats: figures of an epoch, and how a log shows them.
        groups_key: of the metrics by groups of faces: `by_...`.
        groups: names of these groups, in order.
        group_figures: column titles of a table by groups, and the figures in them.
        headline_title: of its most important figure, over a column of the card.
        histogram: chart of the labels' certainty.
    """

    name: str
    classes: int
    labels: tuple[str, ...] = ()
    ordered: bool = False
    span_columns: tuple[str, str] | None = None
    factor: str
    columns: tuple[Column, ...]
    optional_columns: tuple[Column, ...] = ()
    evaluated_columns: tuple[str, ...]
    introduction: str
    validation_formats: ClassVar[Mapping[str, str]]
    groups_key: str
    groups: tuple[str, ...]
    group_figures: ClassVar[Mapping[str, str]]
    headline_title: str
    histogram: Histogram

    def class_indices(self, truth: NDArray[Any]) -> NDArray[np.int64]:
        """Values of the labelled column → class indices; -1 where a value cannot be trained on."""

    def targets(
        self, indices: NDArray[np.int64], recipe: Any, spans: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Target distributions; each row sums to one."""

    def loss(self, targets: "tf.Tensor", probabilities: "tf.Tensor", recipe: Any) -> "tf.Tensor":
        """Weighted loss of each face, float32 (n,)."""

    def face_weights(self, indices: NDArray[np.int64], recipe: Any) -> NDArray[np.float32]:
        """How much each face counts, float32 (n,); 1 on average."""
        return np.ones(len(indices), np.float32)

    def validation_sums(
        self,
        probabilities: NDArray[np.float32],
        indices: NDArray[np.int64],
        spans: NDArray[np.int64] | None = None,
    ) -> dict[str, float]:
        """Sums over faces, whose means over all workers' faces are the figures of an epoch, by name."""

    def validation_error(self, figures: Mapping[str, float]) -> float:
        """The error that the best epoch has least of, from the means of `validation_sums`."""

    def label(
        self, probabilities: NDArray[np.float32], labels: Sequence[str], factor: Factor
    ) -> dict[str, Any]:
        """The n values of each column of the label row; NaN or null for a row of NaN.

        Args:
            probabilities: of the network, not calibrated.
            labels: of the classes, in the order of the network.
            factor: of the calibration.
        """

    def words(self, face: Mapping[str, Any]) -> str:
        """The label of one face of a label row, for people; empty where there is none."""

    def predictions(self, truth: pa.Table, labels: pa.Table) -> P:
        """Truth and label rows of the same n faces → arrays."""

    def read_factor(self, value: Any) -> Factor:
        """The calibration factor as a card has it.

        Raises:
            TypeError, ValueError: it is none of this task.
        """
        return float(value)

    def calibrate(self, predictions: P) -> Factor:
        """Fit the calibration factor on predictions with the factor 1; 1 where nothing is known."""

    def figures(self, predictions: P) -> Metrics:
        """All figures, by `name` and, where there are some, further keys."""

    def headlines(self, predictions: P) -> dict[str, Headline]:
        """The figures that get a confidence interval, by name."""

    def group_of(self, predictions: P) -> NDArray[np.object_]:
        """The group of each face, object (n,), by the task's own truth; None: in no group."""

    def plots(self, predictions: P, labels: pa.Table) -> "Iterator[tuple[str, Figure]]":
        """Each plot of an evaluation that can be drawn, with its name."""

    def tables(self, metrics: Metrics) -> list[TextTable]:
        """The metrics as tables for a terminal."""

    def card_rows(self, metrics: Metrics) -> list[tuple[str, str]]:
        """Names and values of the card's table of figures; none where nothing was measured."""

    def headline_text(self, metrics: Metrics) -> str:
        """The most important figure, with its confidence interval."""

    def is_weak(self, part: Metrics, whole: Metrics) -> bool:
        """Whether a part of the test faces has far larger errors than all of them."""

    def class_of(self, faces: pa.StructArray) -> Floats:
        """Class of each face of label rows, float64 (n,), with fractions; NaN: unknown."""

    def certainty_bin(self, faces: pa.StructArray) -> Floats:
        """Bin of `histogram` of each face of label rows, float64 (n,), with fractions; NaN: unknown."""


def numbers(values: pa.Array | pa.ChunkedArray) -> Floats:
    """Numbers as float64, with NaN for null."""
    return values.cast(pa.float64()).to_pandas().to_numpy(np.float64, na_value=np.nan)


def objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Values as objects, with None for null."""
    return np.array(column.to_pylist(), dtype=object)


def mean(values: NDArray[Any]) -> float | None:
    """The mean; None without values."""
    return float(np.mean(values)) if len(values) else None


def with_interval(value: float | None, interval: list[float] | None, form: str) -> str:
    """A figure with its confidence interval in brackets; a dash where it is undefined."""
    if value is None:
        return "–"
    text = form.format(value)
    return f"{text} ({' to '.join(map(form.format, interval))})" if interval else text


_FORMATS = dict.fromkeys(("mae", "rmse", "bias", "median_predictor_mae"), "{:.2f}") | dict.fromkeys(
    ("epsilon_error", "roc_auc", "ece"), "{:.4f}"
)


def figure_text(key: str, value: float | None) -> str:
    """A figure for a terminal."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else _FORMATS.get(key, "{:.1%}").format(value)


def interval_text(key: str, interval: list[float] | None) -> str:
    """A confidence interval for a terminal."""
    return "" if interval is None else " to ".join(figure_text(key, end) for end in interval)
