"""Which stages run together in one pool of workers, and how many workers each pool gets."""

from dataclasses import dataclass, replace
from typing import Literal

from lib.errors import UserError

Layout = Literal["auto", "fused", "separate"]

FACES, AGE, GENDER = "faces", "age", "gender"
TASK_CPUS = 0.05
"""CPUs of a reading or writing task: they wait for storage, and must find room beside full pools."""
LEFT_FREE = 0.2
"""Share of the CPUs that the pools leave to those tasks. Pools start first: with nothing left, a run
would wait for itself for ever."""


@dataclass(frozen=True)
class Pool:
    """Workers that run the same stages.

    Attributes:
        name: of the pool, as in the options.
        stages: what each worker does, in order: `FACES` (fetch, decode, detect, crop), `AGE`, `GENDER`.
        actors: number of workers.
        cpus: CPUs that the scheduler sets aside for each; may be a fraction.
        gpus: the same for GPUs.
    """

    name: str
    stages: tuple[str, ...]
    actors: int
    cpus: float
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """Threads for the computations of one worker."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class Size:
    """What a user wants of a pool; None leaves it to the cluster found.

    Attributes:
        actors: Number of workers.
        cpus: CPUs for each worker; may be a fraction.
        gpus: GPUs for each worker; may be a fraction.
    """

    actors: int | None = None
    cpus: float | None = None
    gpus: float | None = None

    def check(self, option: str) -> None:
        """Refuse impossible numbers.

        Raises:
            UserError: names the option.
        """
        if self.actors is not None and self.actors < 1:
            raise UserError(f"{option}.actors must be at least 1, not {self.actors}")
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus)):
            if value is not None and value < 0:
                raise UserError(f"{option}.{name} must be at least 0, not {value}")

    def applied_to(self, pool: Pool) -> Pool:
        """The pool with what the user said."""
        return replace(pool, **{k: v for k, v in vars(self).items() if v is not None})


def place(
    layout: Layout, shared_trunk: bool, cpus: float, gpus: float, sizes: dict[str, Size]
) -> list[Pool]:
    """Choose the pools, in the order in which an image passes them.

    Without GPUs everything runs in one pool where both models stand on one trunk: one worker of one
    thread for each CPU, which never waits for another and never hands pixels on. With GPUs, or two
    trunks, finding faces and the models get pools of their own, side by side on different batches.

    Args:
        layout: "fused" and "separate" overrule the choice.
        shared_trunk: whether age and gender stand on one trunk.
        cpus: of the cluster.
        gpus: of the cluster.
        sizes: what the user wants, by name of pool.

    Raises:
        UserError: the pools do not fit the cluster.
    """
    if layout == "auto":
        layout = "fused" if shared_trunk else "separate"
    cores = max(1, int(cpus))
    room = cpus * (1 - LEFT_FREE)
    if gpus:
        tasks: list[tuple[str, ...]] = [(AGE, GENDER)] if layout == "fused" else [(AGE,), (GENDER,)]
        pools = _on_gpus(tasks, cores, room, gpus)
    elif layout == "fused":
        pools = [Pool(FACES, (FACES, AGE, GENDER), cores, room / cores)]
    else:
        # Each model is about as dear as finding the faces of a photograph: a third of the CPUs each.
        third = max(1, cores // 3)
        share = room / (3 * third)
        pools = [Pool(name, (name,), third, share) for name in (FACES, AGE, GENDER)]
    pools = [sizes[pool.name].applied_to(pool) for pool in pools]
    _check_fit(pools, cpus, gpus)
    return pools


def _on_gpus(tasks: list[tuple[str, ...]], cores: int, room: float, gpus: float) -> list[Pool]:
    """A worker on each GPU for each group of tasks, and finding faces on the CPUs that are left."""
    actors = max(1, int(gpus))
    cpus = min(0.5, room / 2 / (actors * len(tasks)))
    share = min(1.0, gpus) / len(tasks)
    models = [Pool(group[0], group, actors, cpus, share) for group in tasks]
    left = room - sum(pool.actors * pool.cpus for pool in models)
    return [Pool(FACES, (FACES,), cores, left / cores), *models]


def _check_fit(pools: list[Pool], cpus: float, gpus: float) -> None:
    for kind, there, asked in (
        ("CPUs", cpus - TASK_CPUS, sum(pool.actors * pool.cpus for pool in pools)),
        ("GPUs", gpus, sum(pool.actors * pool.gpus for pool in pools)),
    ):
        if asked > there + 1e-6:
            each = ", ".join(f"{pool.name} {pool.actors} actors" for pool in pools)
            raise UserError(
                f"the pools ({each}) take {asked:g} {kind}, and the cluster has {there:g} for them; "
                "lower the numbers of actors or what each takes"
            )
