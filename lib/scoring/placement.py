"""Which stages run together in one pool of workers, and how many workers each pool gets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from lib.common.errors import UserError

Layout = Literal["auto", "fused", "separate"]

FACES, MODELS = "faces", "models"
LEAST_FREE_CPUS = 0.05
"""CPUs that the pools must leave free, where the user sizes them."""
LEFT_FREE = 0.2
"""Share of the CPUs that the pools leave to tasks of others, such as those that read a user's dataset.
Pools start first: without CPUs for such tasks a run would never progress."""
GPU_GIB = 16
"""Memory of the smallest GPU that is in common use (NVIDIA T4)."""
GPU_WORKER_GIB = 2
"""What a worker takes of it besides its weights: libraries and a batch of activations."""
WEIGHTS_IN_MEMORY = 4
"""Times the size of the model's files: these hold half precision, and loading makes copies."""
MOST_CPUS_BY_GPU = 32
"""CPUs for each GPU up to which they are taken to be on its machine, before any machine is there."""
WEIGHTS_IN_CPU_MEMORY = 2
"""Memory that the model takes in a worker on CPUs, times the size of its files."""
WORKERS_PER_GPU = 4
"""At most: each takes memory of the GPU, and its libraries half a gigabyte of that."""
CORES_OF_WORKER = 4
"""Cores that one worker on a GPU can use: its threads share Python's lock. Two workers of eight threads
labelled 501 photographs a second on 16 cores that decode 1,719."""
MODEL_WORKERS_PER_GPU = 2
"""Of workers that only compute models: while one hands on its rows, the other one's batch is computed."""


@dataclass(frozen=True)
class Pool:
    """Workers that run the same stages.

    Attributes:
        name: `FACES`, `MODELS`, or the task of a pool that runs one model only.
        stages: what each worker does, in order: `FACES` (fetch, decode, detect, crop), then tasks.
        actors: number of workers, the most that there may be.
        cpus: CPUs that the scheduler sets aside for each; may be a fraction.
        gpus: the same for GPUs.
        least: number of workers to begin with, and to keep; lost ones are asked for again.
        cores: that each really has, where these are more than `cpus`; None: as many.
    """

    name: str
    stages: tuple[str, ...]
    actors: int
    cpus: float
    gpus: float = 0.0
    least: int = 1
    cores: int | None = None

    @property
    def threads(self) -> int:
        """Threads for the computations of one worker."""
        return self.cores or max(1, int(self.cpus))

    def __str__(self) -> str:
        number = f"{self.actors}" if self.least == self.actors else f"{self.least} to {self.actors}"
        gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
        stages = ", ".join(self.stages)
        return f"pool {self.name} ({stages}): {number} x {self.cpus:.2f} CPUs{gpus}"


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
        """The pool with these numbers."""
        sized = replace(pool, **{k: v for k, v in vars(self).items() if v is not None})
        if self.cpus is not None:
            sized = replace(sized, cores=None)
        return sized if self.actors is None else replace(sized, least=self.actors)


@dataclass(frozen=True)
class Growth:
    """What a cluster with an autoscaler may grow to; of others it is what they have.

    Attributes:
        cpus: CPUs of all workers that there may be.
        gpus: GPUs of all workers that there may be.
    """

    cpus: float = 0.0
    gpus: float = 0.0

    def check(self, option: str) -> None:
        """Refuse impossible numbers.

        Raises:
            UserError: names the option.
        """
        for name, value in vars(self).items():
            if value < 0:
                raise UserError(f"{option}.{name} must be at least 0, not {value}")


@dataclass(frozen=True)
class Cluster:
    """What the workers of all pools share.

    Attributes:
        cpus: that are there now.
        gpus: that are there now.
        growth: what there may be later.
        memory: bytes for all workers that are there now; None where it is unknown.
        cpus_by_gpu: CPUs of the machines with GPUs, for each of their GPUs; of the machine with the
            fewest. None where no such machine is there yet.
    """

    cpus: float
    gpus: float
    growth: Growth = field(default_factory=Growth)
    memory: float | None = None
    cpus_by_gpu: float | None = None

    @classmethod
    def of(
        cls,
        resources: Mapping[str, float],
        growth: Growth | None = None,
        machines: Sequence[Mapping[str, float]] = (),
    ) -> "Cluster":
        """The cluster with these resources, as Ray names them, of all and of each machine."""
        get = resources.get
        by_gpu = min((m.get("CPU", 0) / m["GPU"] for m in machines if m.get("GPU")), default=None)
        return cls(get("CPU", 0), get("GPU", 0), growth or Growth(), get("memory"), by_gpu)

    def without_gpus(self) -> "Cluster":
        """The same for work that no GPU does."""
        return replace(self, gpus=0.0, growth=replace(self.growth, gpus=0.0), cpus_by_gpu=None)

    @property
    def most_cpus(self) -> float:
        """CPUs when it has grown."""
        return max(self.cpus, self.growth.cpus)

    @property
    def most_gpus(self) -> float:
        """GPUs when it has grown."""
        return max(self.gpus, self.growth.gpus)

    @property
    def cpus_beside_a_gpu(self) -> float:
        """CPUs on the machine of a GPU for it; 0 where most CPUs of the cluster are elsewhere."""
        if not self.most_gpus:
            return 0.0
        average, share = self.most_cpus / self.most_gpus, self.share_of_a_gpu
        if self.cpus_by_gpu is None:
            return share if share <= MOST_CPUS_BY_GPU else 0.0
        return share if 2 * share >= average else 0.0

    @property
    def share_of_a_gpu(self) -> float:
        """CPUs that each GPU can have, wherever most of them are; there must be a GPU."""
        average = self.most_cpus / self.most_gpus
        return average if self.cpus_by_gpu is None else min(self.cpus_by_gpu, average)


@dataclass(frozen=True)
class Placement:
    """What a user wants of the pools.

    Attributes:
        layout: fused: one pool does all, on GPUs where there are some; separate: detection and each
            task of the model have a pool each.
        faces: workers that fetch, decode, detect and crop; with one pool, all workers.
        models: workers of the models; with the layout separate, of each model.
        max_cluster: what the cluster may grow to.
        reserved_cpus: that the pools leave to others.
    """

    layout: Layout = "auto"
    faces: Size = field(default_factory=Size)
    models: Size = field(default_factory=Size)
    max_cluster: Growth = field(default_factory=Growth)
    reserved_cpus: float | None = None

    def check(self) -> None:
        """Refuse impossible numbers.

        Raises:
            UserError: names the option.
        """
        self.faces.check("--faces")
        self.models.check("--models")
        self.max_cluster.check("--max-cluster")

    def size_of(self, pool: Pool) -> Size:
        """What is wanted of a pool."""
        return self.faces if pool.name == FACES else self.models


def place(
    wanted: Placement,
    cluster: Cluster,
    tasks: tuple[str, ...],
    shared_backbone: bool,
    weights: int = 0,
    blocks: float = math.inf,
    detector_gib: float = 1.0,
) -> list[Pool]:
    """Choose the pools, in the order in which an image passes them.

    On GPUs whose machines have CPUs, one pool does everything: few workers for each GPU, which decode
    with threads on their share of the machine's CPUs, so that no pixels travel between processes.
    Where most CPUs are on other machines, these detect, and the GPUs compute the models alone.
    Without GPUs everything runs in one pool where the tasks share a backbone: one worker of one
    thread for each CPU. Networks apart then have pools of their own, side by side on different batches.

    Args:
        wanted: overrules the choice.
        cluster: now and when it has grown.
        tasks: of the model.
        shared_backbone: whether they share one.
        weights: bytes of the model's files, which say how many workers share a GPU or the memory.
        blocks: of images that there are; a worker without one would only take time to start.
        detector_gib: memory in GiB of a worker that detects, besides the weights of models.

    Raises:
        UserError: the pools do not fit the cluster.
    """
    if not cluster.most_cpus:
        raise UserError(
            "the cluster has no CPUs for work: start workers, or say with --max-cluster.cpus how many "
            "its autoscaler may start"
        )
    room = cluster.most_cpus * (1 - LEFT_FREE)
    if wanted.reserved_cpus is not None:
        room = max(0.0, cluster.most_cpus - wanted.reserved_cpus)
    together = [(MODELS, tasks)]
    groups = together if shared_backbone else [(task, (task,)) for task in tasks]
    match wanted.layout:
        case "auto":
            one_pool = bool(cluster.cpus_beside_a_gpu) if cluster.most_gpus else shared_backbone
        case "fused":
            one_pool = True
        case "separate":
            one_pool, groups = False, [(task, (task,)) for task in tasks]
        case _:
            assert_never(wanted.layout)
    if one_pool and cluster.most_gpus:
        pools = [_all_on_gpus(cluster, tasks, room, weights, detector_gib)]
    elif one_pool:
        actors = min(_cores(cluster), fitting(cluster, detector_gib, weights))
        pools = [Pool(FACES, (FACES, *tasks), actors, room / actors)]
    elif cluster.most_gpus:
        detectors = min(_cores(cluster), fitting(cluster, detector_gib))
        pools = [
            Pool(FACES, (FACES,), detectors, room / detectors),
            *_models_on_gpus(groups, cluster.most_gpus, weights),
        ]
    else:
        # A model costs about as much as detection in a photograph: an equal share of the CPUs each.
        workers = min(_cores(cluster), fitting(cluster, detector_gib, weights))
        actors = max(1, workers // (1 + len(groups)))
        cpus = room / ((1 + len(groups)) * actors)
        pools = [Pool(name, stages, actors, cpus) for name, stages in ((FACES, (FACES,)), *groups)]
    pools = [_at_most(_begun(pool, cluster), blocks) for pool in pools]
    pools = [wanted.size_of(pool).applied_to(pool) for pool in pools]
    _check_fit(pools, cluster)
    return pools


def _cores(cluster: Cluster) -> int:
    return max(1, int(cluster.most_cpus))


def _at_most(pool: Pool, most: float) -> Pool:
    actors = max(1, int(min(pool.actors, most)))
    return replace(pool, actors=actors, least=min(pool.least, actors))


def _begun(pool: Pool, cluster: Cluster) -> Pool:
    """The pool with as many workers to begin with as there is room for now."""
    now = cluster.gpus / cluster.most_gpus if pool.gpus else cluster.cpus / cluster.most_cpus
    return replace(pool, least=max(1, int(pool.actors * now)))


def fitting(cluster: Cluster, gib: float, weights: int = 0) -> int:
    """Workers whose memory the cluster has when it has grown."""
    if cluster.memory is None or not cluster.cpus:
        return max(1, int(cluster.most_cpus))
    memory = cluster.memory * cluster.most_cpus / cluster.cpus
    return max(1, int(memory / bytes_of_worker(gib, weights)))


def bytes_of_worker(gib: float, weights: int) -> float:
    """Memory of a worker on CPUs: `gib` for its detector, and the models by the bytes of their files."""
    return gib * 2**30 + WEIGHTS_IN_CPU_MEMORY * weights


def _all_on_gpus(
    cluster: Cluster,
    tasks: tuple[str, ...],
    room: float,
    weights: int,
    detector_gib: float,
) -> Pool:
    """As few workers for each GPU as use its share of the machine's cores, and fit its memory."""
    by_gpu = cluster.share_of_a_gpu
    in_memory = fitting(cluster, detector_gib) / cluster.most_gpus
    decoding = min(by_gpu, in_memory)
    workers = max(1, min(_fitting_a_gpu(weights), math.ceil(decoding / CORES_OF_WORKER)))
    return Pool(
        FACES,
        (FACES, *tasks),
        max(1, int(cluster.most_gpus)) * workers,
        by_gpu * room / cluster.most_cpus / workers * min(1.0, cluster.most_gpus),
        min(1.0, cluster.most_gpus) / workers,
        cores=max(1, min(round(by_gpu / workers), int(in_memory / workers))),
    )


def _models_on_gpus(
    groups: Sequence[tuple[str, tuple[str, ...]]], gpus: float, weights: int
) -> list[Pool]:
    """A few workers on each GPU for each group of tasks, given by name and tasks.

    They take no CPUs, so that no detector on their machine keeps them off its GPU.
    """
    workers = max(1, min(MODEL_WORKERS_PER_GPU, _fitting_a_gpu(weights) // len(groups)))
    actors = max(1, int(gpus)) * workers
    share = min(1.0, gpus) / len(groups) / workers
    return [Pool(name, tasks, actors, 0.0, share) for name, tasks in groups]


def _fitting_a_gpu(weights: int) -> int:
    """Workers whose memory a GPU has."""
    needed = GPU_WORKER_GIB + WEIGHTS_IN_MEMORY * weights / 2**30
    return max(1, min(WORKERS_PER_GPU, int(GPU_GIB / needed)))


def _check_fit(pools: list[Pool], cluster: Cluster) -> None:
    for kind, there, asked in (
        (
            "CPUs",
            cluster.most_cpus - LEAST_FREE_CPUS,
            sum(pool.actors * pool.cpus for pool in pools),
        ),
        ("GPUs", cluster.most_gpus, sum(pool.actors * pool.gpus for pool in pools)),
    ):
        if asked > there + 1e-6:
            each = ", ".join(f"{pool.name} {pool.actors} actors" for pool in pools)
            raise UserError(
                f"the pools ({each}) take {asked:g} {kind}, and the cluster has {there:g} for them; "
                "lower the numbers of actors or what each takes"
            )
