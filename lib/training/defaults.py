"""What the user leaves to the program: by the backbone, and by the devices that the cluster has.

Decided once for each run, at its first start: a run that goes on elsewhere goes on with the same.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Literal

from lib.common.errors import UserError
from lib.models.backbones.spec import BackboneSpec
from lib.scoring.placement import GPU_GIB, Cluster
from lib.storage.folder import Folder
from lib.training.recipe import Recipe

UseGpu = Literal["auto", "yes", "no"]

CHOSEN = "recipe.json"
"""Of an output: the recipe that its run follows."""
CPU_BATCH = 96
LARGEST_FACTOR = 4
"""Times the batch for a GPU of `GPU_GIB`: a larger one makes no step more efficient."""
STEPS_OF_AN_EPOCH = 100
"""At least, where smaller batches give as many: fewer learn too little in the epochs of the recipe."""
_GRAIN = 32
_ACCELERATOR = "accelerator_type:"
_GIB = {
    "V100": 16, "P100": 16, "T4": 16, "P4": 8, "K80": 12, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40,
    "A100-40G": 40, "A100-80G": 80, "H100": 80, "H200": 141, "H20": 96, "B200": 180, "GH200": 96,
}  # fmt: skip


def uses_gpus(wanted: UseGpu, workers: int, cluster: Cluster) -> bool:
    """Whether each worker gets a GPU.

    Args:
        wanted: by the user; auto: where the cluster has any, or may grow to have some.
        workers: that train together.
        cluster: now and when it has grown.

    Raises:
        UserError: there are not enough.
    """
    if wanted == "no" or (wanted == "auto" and not cluster.most_gpus):
        return False
    if cluster.most_gpus < workers:
        raise UserError(
            f"{workers} workers need a GPU each, and the cluster has {cluster.most_gpus:g}; lower "
            "--workers, or say --use-gpu no"
        )
    return True


def gpu_gib(resources: Mapping[str, float]) -> float:
    """Memory of the smallest GPU of a cluster by the names that Ray finds; `GPU_GIB` where it finds none.

    Args:
        resources: of the cluster, as Ray names them.
    """
    names = [name.removeprefix(_ACCELERATOR) for name in resources if name.startswith(_ACCELERATOR)]
    return min((_GIB.get(name, GPU_GIB) for name in names), default=GPU_GIB)


def completed(
    recipe: Recipe, spec: BackboneSpec, has_weights: bool, batch: int, precise: bool
) -> Recipe:
    """The recipe with nothing left open.

    Args:
        recipe: of the user.
        spec: of the backbone.
        has_weights: whether the backbone starts from weights.
        batch: faces of a step on each worker.
        precise: whether to compute in float32; else in bfloat16, which has its range.
    """
    frozen = spec.frozen_epochs if has_weights else 0
    return replace(
        recipe,
        batch_size=recipe.batch_size or batch,
        precision=recipe.precision or ("float32" if precise else "bfloat16"),
        size=recipe.size or spec.size,
        frozen_epochs=frozen if recipe.frozen_epochs is None else recipe.frozen_epochs,
        learning_rate=recipe.learning_rate or spec.learning_rate,
    )


def gpu_batch(spec: BackboneSpec, gib: float, size: int, faces: int) -> int:
    """Faces of a step on a GPU, a multiple of 32.

    Args:
        spec: of the backbone.
        gib: memory of the GPU.
        size: of the crops, in pixels.
        faces: to train on, of each update of one worker.
    """
    factor = min(LARGEST_FACTOR, gib / GPU_GIB) * (spec.size / size) ** 2
    largest = max(_GRAIN, int(spec.gpu_batch * factor) // _GRAIN * _GRAIN)
    enough = max(CPU_BATCH, faces // STEPS_OF_AN_EPOCH // _GRAIN * _GRAIN)
    return min(largest, enough)


def kept(output: Folder, recipe: Recipe) -> Recipe:
    """The recipe of the run's first start: this one, which is written down, if it is that start."""
    try:
        values = json.loads(output.read(CHOSEN))
    except FileNotFoundError:
        output.write(CHOSEN, (json.dumps(asdict(recipe), indent=1) + "\n").encode())
        return recipe
    return replace(recipe, **(values | {"tasks": tuple(values["tasks"])}))
