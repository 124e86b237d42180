"""What holds for every task."""

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from lib.tasks import GROUPS, TASKS, TaskName
from lib.training.recipe import Recipe

HEAVY = ("tensorflow", "keras", "ray", "matplotlib", "sklearn", "torch")


@pytest.mark.parametrize("module", ["lib.tasks", "lib.models.backbones.registry"])
def test_registries_import_quickly(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_registry_is_complete() -> None:
    assert tuple(TASKS) == get_args(TaskName) == ("age", "gender")
    assert GROUPS == {"age": "by_age_band", "gender": "by_gender", "group": "by_group"}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_targets_sum_to_one_and_the_loss_is_least_where_they_are_met(task: Any) -> None:
    indices = np.arange(task.classes)
    recipe = Recipe()
    targets = task.targets(indices, recipe)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(targets.argmax(axis=1), indices)
    met = np.asarray(task.loss(targets, targets, recipe))
    missed = np.asarray(task.loss(targets, np.roll(targets, 1, axis=0), recipe))
    assert met.shape == (task.classes,)
    assert (met < missed).all()
    figures = task.validation_sums(targets, indices)
    assert figures.keys() == task.validation_formats.keys() - {"val_in_band"}


@pytest.mark.parametrize(
    ("name", "values", "indices"),
    [("age", [0, 100, 101, -1, np.nan], [0, 100, -1, -1, -1]),
     ("gender", ["female", "male", None, "x"], [0, 1, -1, -1])],
)  # fmt: skip
def test_labels_that_cannot_be_trained_on_have_no_class(
    name: str, values: list[Any], indices: list[int]
) -> None:
    truth = np.array(values, object if name == "gender" else np.float64)
    assert TASKS[name].class_indices(truth).tolist() == indices


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_unknown_probabilities_give_unknown_labels(task: Any) -> None:
    probabilities = np.full((2, task.classes), 1 / task.classes, np.float32)
    probabilities[1] = np.nan
    columns = task.label(probabilities, task.labels, 1.0)
    assert columns.keys() == {c.name for c in (*task.columns, *task.optional_columns)}
    for values in columns.values():
        array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
        assert array.is_null().to_pylist() == [False, True]
