"""How good predictions are: all figures of all tasks, on the whole and for groups of faces.

Every figure is None where it is undefined, such as the mean of no values; no figure is NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.evaluation.comparison import Comparison
from lib.tasks import TASKS
from lib.tasks.task import Mask, Metrics, Predictions, objects

RESAMPLES = 1000
_BOOTSTRAP_BLOCK = 1 << 20  # values drawn at once, which bounds the memory


@dataclass(frozen=True)
class AllPredictions:
    """The truth about n faces and what a model says about them.

    Attributes:
        tasks: of each task.
        group: (n,) object, strings or None; None: no groups.
    """

    tasks: Mapping[str, Predictions]
    group: NDArray[np.object_] | None = None

    @classmethod
    def of(cls, comparison: Comparison) -> "AllPredictions":
        """The comparison as arrays."""
        truth, labels = comparison.truth, comparison.labels
        tasks = {name: task.predictions(truth, labels) for name, task in TASKS.items()}
        return cls(tasks, objects(truth["group"]))

    def __len__(self) -> int:
        return len(next(iter(self.tasks.values())))

    def where(self, mask: Mask) -> "AllPredictions":
        """Only the faces for which the mask, (n,) bool, is true."""
        tasks = {name: predictions.where(mask) for name, predictions in self.tasks.items()}
        return AllPredictions(tasks, None if self.group is None else self.group[mask])

    def groups(self) -> dict[str, tuple[NDArray[np.object_], Sequence[str]]]:
        """By the key of their metrics: the group of each face, (n,), and the names of all groups."""
        other = np.full(len(self), None, object) if self.group is None else self.group
        names = sorted({str(name) for name in other if name is not None})
        by_task = {
            TASKS[name].groups_key: (TASKS[name].group_of(of_task), TASKS[name].groups)
            for name, of_task in self.tasks.items()
        }
        return {**by_task, "by_group": (other, names)}


def evaluate(predictions: AllPredictions, resamples: int = RESAMPLES, seed: int = 0) -> Metrics:
    """Compute all figures.

    Args:
        predictions: of n faces.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Numbers, strings, None and nested dictionaries of them, ready for JSON: `count`; the figures
        of each task, and `confidence_95`, intervals of the headline figures; the same by age band of
        the true age, by true gender and by group.
    """

    def figures(part: AllPredictions) -> Metrics:
        found: Metrics = {"count": len(part)}
        intervals: dict[str, Any] = {}
        for name, of_task in part.tasks.items():
            found |= TASKS[name].figures(of_task)
            for key, headline in TASKS[name].headlines(of_task).items():
                interval = bootstrap_interval(headline.values, resamples, seed)
                if interval is not None and headline.root:
                    interval = [end**0.5 for end in interval]
                intervals[key] = interval
        return {**found, "confidence_95": intervals}

    return {
        **figures(predictions),
        **{
            key: {name: figures(predictions.where(groups == name)) for name in names}
            for key, (groups, names) in predictions.groups().items()
        },
    }


def bootstrap_interval(
    values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> list[float] | None:
    """Give the percentile bootstrap interval of a mean (Efron 1979): lower and upper end.

    Args:
        values: (n,) numbers; None comes back for none.
        resamples: how many samples of n are drawn.
        seed: the same one gives the same interval.
        level: of confidence, between 0 and 1.
    """
    from scipy.stats import bootstrap

    sample = np.asarray(values, np.float64)
    if len(sample) < 2:  # SciPy refuses these
        return [float(sample[0])] * 2 if len(sample) else None
    found = bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _BOOTSTRAP_BLOCK // len(sample)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return [float(found.low), float(found.high)]
