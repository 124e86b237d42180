"""What Ray Train is told, and what is made of its answers."""

import math
import os
import signal
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest

from lib.common.errors import UserError
from lib.scoring.placement import Cluster, Growth
from lib.training import workers
from lib.training.allocation import cpus_of_each
from lib.training.recipe import Recipe
from lib.training.signals import watched_signals
from lib.training.workers import _is_best, _stale


@pytest.mark.parametrize(
    ("workers", "machines", "cpus"),
    [
        (1, [4], 3.9),
        (1, [4, 4], 3.9),
        (2, [4, 4], 3.9),
        (3, [8, 8], 3.95),
        (3, [16, 4], 5.3),
        (4, [16, 0], 3.97),
    ],
)
def test_each_worker_fits_a_machine(workers: int, machines: list[float], cpus: float) -> None:
    """As many CPUs for each as there can be, on whole machines, of which a little stays free."""
    there = [{"CPU": float(machine)} for machine in machines]
    cluster = Cluster(sum(machines), 0)
    assert cpus_of_each(workers, None, False, cluster, there) == cpus


@pytest.mark.parametrize(
    ("workers", "wanted", "machines", "complaint"),
    [
        (2, 5.0, [8, 4], "2 workers of 5 CPUs do not fit: the machines have 7.9, 3.9 CPUs free"),
        (1, 7.0, [4, 4], "1 workers of 7 CPUs do not fit"),
        (1, None, [0], "the machines have none CPUs free"),
    ],
)
def test_workers_that_fit_no_machine_are_refused(
    workers: int, wanted: float | None, machines: list[float], complaint: str
) -> None:
    there = [{"CPU": float(machine)} for machine in machines]
    with pytest.raises(UserError, match=complaint):
        cpus_of_each(workers, wanted, False, Cluster(sum(machines), 0), there)


def test_gpus_are_on_machines_too() -> None:
    there = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}]
    assert cpus_of_each(2, None, True, Cluster(72, 2), there) == 3.95
    with pytest.raises(UserError, match=r"3 workers of 1 CPUs and a GPU do not fit"):
        cpus_of_each(3, None, True, Cluster(72, 2), there)


def test_a_cluster_that_grows_is_taken_at_its_word() -> None:
    assert cpus_of_each(4, 6.0, True, Cluster(0, 0, Growth(28, 4)), []) == 6.0


def test_only_epochs_at_the_full_size_count_for_patience() -> None:
    recipe = replace(Recipe(), patience=2, progressive_size=32, progressive_epochs=2)

    def history(*errors: float) -> list[dict[str, Any]]:
        return [{"val_error": error} for error in errors]

    assert not _stale(history(5, 6, 7, 8), recipe)
    assert not _stale(history(1, 1, 7, 8, 6), recipe)
    assert _stale(history(9, 9, 7, 8, 8), recipe)


def test_the_best_epoch_is_one_at_the_full_size_with_an_error() -> None:
    recipe = replace(Recipe(), progressive_size=32, progressive_epochs=1)

    def is_best(*errors: float) -> bool:
        return _is_best([{"val_error": error} for error in errors], recipe)

    assert not is_best(5)
    assert is_best(5, 6)
    assert is_best(5, 7, 6)
    assert not is_best(5, 6, 6)
    assert not is_best(5, 6, math.nan)
    assert is_best(5, math.nan, 6)
    assert not is_best(5, math.inf)


def test_a_signal_that_others_handle_is_seen() -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with watched_signals() as arrived:
            assert arrived() == b""
            signal.raise_signal(signal.SIGINT)
            assert signal.SIGINT in arrived()
            assert arrived() == b""
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_worker_with_a_checkpoint_waits_but_a_moment() -> None:
    """Ray Train asks workers for their reports in this interval; by default in one of two seconds."""
    from ray.train.v2._internal import constants

    assert constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR in constants.get_env_vars_to_propagate()
    assert float(os.environ[constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR]) < 0.5


def test_a_full_memory_is_a_reason_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def train(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    actor = MagicMock()
    actor.reason.remote.return_value = None
    monkeypatch.setattr(workers, "_train", train)
    monkeypatch.setattr(workers.ray, "get", lambda answer: answer)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        workers.work({"plan": None, "actor": actor, "threads": 1, "use_gpu": True})
    actor.fail.remote.assert_called_once_with(workers.NO_MEMORY)
