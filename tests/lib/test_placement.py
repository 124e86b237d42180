import pytest

from lib.errors import UserError
from lib.placement import AGE, FACES, GENDER, TASK_CPUS, Layout, Size, place

SIZES = {FACES: Size(), AGE: Size(), GENDER: Size()}


@pytest.mark.parametrize("cpus", [1, 2, 3, 8, 96])
@pytest.mark.parametrize("gpus", [0, 1, 4])
@pytest.mark.parametrize("shared_trunk", [True, False])
@pytest.mark.parametrize("layout", ["auto", "fused", "separate"])
def test_every_stage_once_and_room_for_tasks(
    layout: Layout, shared_trunk: bool, gpus: int, cpus: int
) -> None:
    pools = place(layout, shared_trunk, cpus, gpus, SIZES)
    assert [stage for pool in pools for stage in pool.stages] == [FACES, AGE, GENDER]
    assert sum(pool.actors * pool.cpus for pool in pools) <= cpus - 2 * TASK_CPUS
    assert sum(pool.actors * pool.gpus for pool in pools) <= gpus
    assert all(pool.actors >= 1 for pool in pools)
    if gpus:
        assert sum(pool.gpus for pool in pools) > 0


@pytest.mark.parametrize(
    ("layout", "shared_trunk", "pools"),
    [
        ("auto", True, [(FACES, AGE, GENDER)]),
        ("auto", False, [(FACES,), (AGE,), (GENDER,)]),
        ("separate", True, [(FACES,), (AGE,), (GENDER,)]),
        ("fused", False, [(FACES, AGE, GENDER)]),
    ],
)
def test_what_runs_together_on_cpus(
    layout: Layout, shared_trunk: bool, pools: list[tuple[str, ...]]
) -> None:
    assert [pool.stages for pool in place(layout, shared_trunk, 8, 0, SIZES)] == pools


def test_one_worker_of_one_thread_for_each_cpu() -> None:
    (pool,) = place("auto", True, 8, 0, SIZES)
    assert (pool.actors, pool.threads) == (8, 1)


def test_what_the_user_says_holds() -> None:
    sizes = {**SIZES, FACES: Size(actors=3, cpus=2.0)}
    pools = place("separate", True, 16, 0, sizes)
    assert (pools[0].actors, pools[0].cpus, pools[0].threads) == (3, 2.0, 2)


@pytest.mark.parametrize(
    ("size", "complaint"), [(Size(actors=9, cpus=1), "CPUs"), (Size(gpus=1), "GPUs")]
)
def test_what_does_not_fit_is_refused(size: Size, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        place("auto", True, 8, 0, {**SIZES, FACES: size})
