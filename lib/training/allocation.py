"""How many CPUs each worker of a training run gets."""

from collections.abc import Mapping, Sequence

from lib.common.errors import UserError
from lib.scoring.placement import Cluster

LEFT_FREE = 0.1
"""CPUs of each machine that no worker gets: what runs beside them must find room."""


def cpus_of_each(
    workers: int,
    wanted: float | None,
    use_gpu: bool,
    cluster: Cluster,
    machines: Sequence[Mapping[str, float]],
) -> float:
    """CPUs for each worker.

    Args:
        workers: that train together.
        wanted: CPUs of each; None takes as many as each can have.
        use_gpu: whether each needs a GPU.
        cluster: now and when it has grown; where it grows, nothing is known of its machines.
        machines: the resources of each that is there now, as Ray names them.

    Raises:
        UserError: the cluster has no room for the workers.
    """
    if cluster.growth.cpus:
        machines = [{"CPU": cluster.most_cpus, "GPU": cluster.most_gpus}]
    rooms = [machine.get("CPU", 0.0) - LEFT_FREE for machine in machines]
    most = [int(machine.get("GPU", 0.0)) if use_gpu else workers for machine in machines]

    def fitting(cpus: float) -> int:
        return sum(
            min(gpus, int(room / cpus + 1e-6))
            for room, gpus in zip(rooms, most, strict=True)
            if room > 0
        )

    shares = {int(100 * room / n) / 100 for room in rooms for n in range(1, workers + 1)}
    possible = [cpus for cpus in shares if cpus > 0 and fitting(cpus) >= workers]
    cpus = wanted or max(possible, default=1.0)
    if fitting(cpus) < workers:
        usable = [room for room, places in zip(rooms, most, strict=True) if room > 0 and places]
        free = ", ".join(f"{room:g}" for room in usable) or "none"
        each, where, remedy = "", "machines", ""
        if use_gpu:
            each, where, remedy = " and a GPU", "machines with GPUs", ", or say --use-gpu no"
        raise UserError(
            f"{workers} workers of {cpus:g} CPUs{each} do not fit: the {where} have {free} CPUs free; "
            f"lower --workers or --cpus{remedy}"
        )
    return cpus
