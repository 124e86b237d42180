import pytest

from lib.common.errors import UserError
from lib.scoring.placement import (
    FACES,
    LEAST_FREE_CPUS,
    Cluster,
    Growth,
    Layout,
    Placement,
    Size,
    place,
)

TASKS = ("age", "gender")
AUTO = Placement()


@pytest.mark.parametrize("cpus", [1, 2, 3, 8, 96])
@pytest.mark.parametrize("gpus", [0, 1, 4])
@pytest.mark.parametrize("shared_backbone", [True, False])
@pytest.mark.parametrize("layout", ["auto", "fused", "separate"])
def test_every_stage_once_and_room_for_tasks(
    layout: Layout, shared_backbone: bool, gpus: int, cpus: int
) -> None:
    pools = place(Placement(layout), Cluster(cpus, gpus), TASKS, shared_backbone)
    assert [stage for pool in pools for stage in pool.stages] == [FACES, *TASKS]
    assert sum(pool.actors * pool.cpus for pool in pools) <= cpus - 2 * LEAST_FREE_CPUS
    assert sum(pool.actors * pool.gpus for pool in pools) <= gpus
    assert all(pool.actors >= 1 for pool in pools)
    if gpus:
        assert sum(pool.gpus for pool in pools) > 0


@pytest.mark.parametrize(
    ("layout", "shared_backbone", "pools"),
    [
        ("auto", True, [(FACES, *TASKS)]),
        ("auto", False, [(FACES,), ("age",), ("gender",)]),
        ("separate", True, [(FACES,), ("age",), ("gender",)]),
        ("fused", False, [(FACES, *TASKS)]),
    ],
)
def test_what_runs_together_on_cpus(
    layout: Layout, shared_backbone: bool, pools: list[tuple[str, ...]]
) -> None:
    placed = place(Placement(layout), Cluster(8, 0), TASKS, shared_backbone)
    assert [pool.stages for pool in placed] == pools


def test_one_worker_of_one_thread_for_each_cpu() -> None:
    (pool,) = place(AUTO, Cluster(8, 0), TASKS, True)
    assert (pool.actors, pool.threads) == (8, 1)


def test_no_worker_is_started_for_nothing() -> None:
    (pool,) = place(AUTO, Cluster(8, 0), TASKS, True, blocks=3)
    assert (pool.actors, pool.least, pool.threads) == (3, 3, 1)
    wanted = Placement(faces=Size(actors=5))
    (pool,) = place(wanted, Cluster(8, 0), TASKS, True, blocks=3)
    assert (pool.actors, pool.least) == (5, 5)


def test_what_the_user_says_holds() -> None:
    wanted = Placement("separate", faces=Size(actors=3, cpus=2.0))
    pools = place(wanted, Cluster(16, 0), TASKS, True)
    assert (pools[0].actors, pools[0].cpus, pools[0].threads) == (3, 2.0, 2)


@pytest.mark.parametrize(
    ("size", "complaint"), [(Size(actors=9, cpus=1), "CPUs"), (Size(gpus=1), "GPUs")]
)
def test_what_does_not_fit_is_refused(size: Size, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        place(Placement(faces=size), Cluster(8, 0), TASKS, True)


@pytest.mark.parametrize(("cpus", "gpus"), [(0, 0), (80, 0), (240, 2), (640, 4)])
def test_pools_begin_with_what_is_there_and_grow(cpus: int, gpus: int) -> None:
    for most in (640, 64):  # with most of the CPUs elsewhere, and beside the GPUs
        grown = place(AUTO, Cluster(most, 4), TASKS, True)
        pools = place(AUTO, Cluster(cpus * most / 640, gpus, Growth(most, 4)), TASKS, True)
        assert [pool.actors for pool in pools] == [pool.actors for pool in grown]
        shares = [gpus / 4 if pool.gpus else cpus / 640 for pool in grown]
        assert [pool.least for pool in pools] == [
            max(1, int(pool.actors * share)) for pool, share in zip(grown, shares, strict=True)
        ]


def test_a_cluster_without_cpus_that_does_not_grow_is_refused() -> None:
    with pytest.raises(UserError, match=r"--max-cluster\.cpus"):
        place(AUTO, Cluster(0, 0), TASKS, True)


@pytest.mark.parametrize(
    ("weights", "layout", "workers"),
    [
        (6 * 2**20, "auto", 2),
        (6 * 2**20, "separate", 2),
        (1100 * 2**20, "separate", 1),
        (8 * 2**30, "auto", 1),
    ],
)
def test_large_models_share_a_gpu_among_fewer_workers(
    weights: int, layout: Layout, workers: int
) -> None:
    """Most CPUs are on other machines than the GPUs."""
    cluster = Cluster(160, 2, cpus_by_gpu=8)
    faces, *models = place(Placement(layout), cluster, TASKS, True, weights)
    assert faces.gpus == 0
    assert [pool.actors for pool in models] == [2 * workers] * len(models)
    assert sum(pool.gpus * pool.actors for pool in models) == pytest.approx(2)


@pytest.mark.parametrize(
    ("cpus", "gpus", "weights", "actors", "cores"),
    [
        (4, 1, 6 * 2**20, 1, 4),
        (16, 1, 6 * 2**20, 4, 4),
        (16, 1, 1100 * 2**20, 2, 8),
        (64, 4, 6 * 2**20, 16, 4),
        (1, 1, 6 * 2**20, 1, 1),
        (28, 1, 6 * 2**20, 4, 7),
    ],
)
def test_workers_on_gpus_have_their_share_of_the_cores(
    cpus: int, gpus: int, weights: int, actors: int, cores: int
) -> None:
    """Where the machines with GPUs have most CPUs, one pool does everything on them."""
    for cluster in (Cluster(cpus, gpus), Cluster(0, 0, Growth(cpus, gpus))):
        (pool,) = place(AUTO, cluster, TASKS, False, weights)
        assert pool.stages == (FACES, *TASKS)
        assert (pool.actors, pool.threads) == (actors, cores)
        assert pool.actors * pool.gpus == pytest.approx(gpus)
        assert pool.actors * pool.cpus == pytest.approx(cpus * 0.8)


def test_one_pool_on_machines_whose_cpus_are_all_elsewhere() -> None:
    """Asked for by the user: a worker must fit a machine that has a GPU and no CPU."""
    (pool,) = place(Placement("fused"), Cluster(8, 2, cpus_by_gpu=0), TASKS, True)
    assert (pool.actors, pool.cpus, pool.gpus, pool.threads) == (2, 0, 1, 1)


@pytest.mark.parametrize(
    ("machines", "growth", "beside"),
    [
        ([{"CPU": 16, "GPU": 1}], Growth(), 16),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 8}], Growth(), 8),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 24}], Growth(), 0),
        ([{"CPU": 16, "GPU": 1}, {"CPU": 4, "GPU": 1}], Growth(), 0),
        ([{"CPU": 0, "GPU": 1}, {"CPU": 4}], Growth(), 0),
        ([{"CPU": 0}], Growth(508, 4), 0),
        ([{"CPU": 0}], Growth(64, 4), 16),
        ([{"CPU": 16}], Growth(), 0),
    ],
)
def test_where_the_cpus_are(machines: list[dict[str, float]], growth: Growth, beside: int) -> None:
    total = {kind: sum(machine.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU")}
    assert Cluster.of(total, growth, machines).cpus_beside_a_gpu == beside


@pytest.mark.parametrize(("gib", "actors"), [(None, 16), (22, 7), (64, 16), (1, 1)])
def test_large_models_share_the_memory_of_cpus(gib: int | None, actors: int) -> None:
    """A worker of a gigabyte of weights takes three."""
    memory = None if gib is None else gib * 2.0**30
    (pool,) = place(AUTO, Cluster(16, 0, memory=memory), TASKS, True, weights=2**30)
    assert pool.actors == actors
    assert pool.actors * pool.cpus == pytest.approx(16 * 0.8)


def test_expensive_detectors_share_the_memory() -> None:
    cluster = Cluster(16, 2, memory=10 * 2.0**30)
    for gib, detectors in ((1, 10), (2, 5)):
        faces, *models = place(Placement("separate"), cluster, TASKS, True, detector_gib=gib)
        assert faces.actors == detectors
        assert len(models) == 2
        (pool,) = place(AUTO, cluster, TASKS, True, detector_gib=gib)
        assert detectors / 2 < pool.actors * pool.threads <= detectors
    (pool,) = place(AUTO, Cluster(16, 0, memory=10 * 2.0**30), TASKS, True, detector_gib=2)
    assert pool.actors == 5


@pytest.mark.parametrize("task", TASKS)
def test_pools_apart_of_one_task_leave_no_cpu_idle(task: str) -> None:
    faces, model = place(Placement("separate"), Cluster(16, 0), (task,), True)
    assert (model.name, model.stages) == (task, (task,))
    assert sum(pool.actors * pool.cpus for pool in (faces, model)) == pytest.approx(16 * 0.8)
    assert faces.actors == model.actors == 8


def test_cpus_for_others_are_left_to_them() -> None:
    for cpus in (1, 2, 16):
        (pool,) = place(Placement(reserved_cpus=1.0), Cluster(cpus, 0), TASKS, True)
        assert pool.actors * pool.cpus == pytest.approx(cpus - 1)
        assert pool.actors == cpus
