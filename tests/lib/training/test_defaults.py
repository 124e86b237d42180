"""What a user leaves to the program: GPUs, batch and precision."""

from pathlib import Path

import pytest

from jobs.train import Options
from lib.common.errors import UserError
from lib.models.backbones.registry import BACKBONES
from lib.scoring.placement import Cluster, Growth
from lib.storage.folder import folder
from lib.training.defaults import gpu_batch, gpu_gib, kept, uses_gpus
from lib.training.recipe import Recipe
from lib.training.run import recipe_of

OPTIONS = Options("data", "run")


def test_gpus_are_used_where_there_are_any() -> None:
    none, two, later = Cluster(8, 0), Cluster(8, 2), Cluster(8, 0, Growth(8, 2))
    assert [uses_gpus("auto", 2, cluster) for cluster in (none, two, later)] == [False, True, True]
    assert [uses_gpus("no", 2, cluster) for cluster in (none, two, later)] == [False] * 3
    assert uses_gpus("yes", 2, two)
    for wanted, workers, cluster, has in (("auto", 3, two, 2), ("yes", 1, none, 0)):
        with pytest.raises(
            UserError, match=f"cluster has {has}; lower --workers, or say --use-gpu no"
        ):
            uses_gpus(wanted, workers, cluster)  # type: ignore[arg-type]


def test_the_memory_is_that_of_the_smallest_gpu() -> None:
    assert gpu_gib({"CPU": 8, "GPU": 1}) == 16
    assert gpu_gib({"GPU": 2, "accelerator_type:H100": 1}) == 80
    assert gpu_gib({"accelerator_type:H100": 1, "accelerator_type:L4": 1}) == 24
    assert gpu_gib({"accelerator_type:Unheard-of": 1}) == 16


@pytest.mark.parametrize(
    ("backbone", "gib", "size", "faces", "batch"),
    [
        ("vgg-face", 16, 224, 10**6, 96),
        ("vgg-face", 80, 224, 10**6, 384),
        ("efficientnet-lite0", 24, 96, 10**6, 768),
        ("efficientnet-lite0", 16, 192, 10**6, 128),
        ("efficientnet-lite0", 80, 96, 15_000, 128),
        ("efficientnet-lite0", 80, 96, 2_000, 96),
        ("vgg-face", 8, 224, 10**6, 32),
    ],
)
def test_the_batch_follows_backbone_memory_and_faces(
    backbone: str, gib: float, size: int, faces: int, batch: int
) -> None:
    assert gpu_batch(BACKBONES[backbone], gib, size, faces) == batch


def test_what_the_user_says_counts() -> None:
    on_cpus, on_gpus = recipe_of(OPTIONS, 10**6, None), recipe_of(OPTIONS, 10**6, 16)
    assert (on_cpus.batch_size, on_cpus.precision) == (96, "float32")
    assert (on_gpus.batch_size, on_gpus.precision) == (512, "bfloat16")
    told = Options("data", "run", recipe=Recipe(batch_size=7, precision="float16"))
    for gib in (None, 80):
        recipe = recipe_of(told, 10**6, gib)
        assert (recipe.batch_size, recipe.precision) == (7, "float16")
    # Few workers must be able to share the batch of many.
    elastic = Options("data", "run", workers=4, min_workers=2)
    assert recipe_of(elastic, 10**6, 80).batch_size == 96


def test_a_run_that_goes_on_elsewhere_goes_on_with_the_same(tmp_path: Path) -> None:
    output = folder(tmp_path)
    first = recipe_of(OPTIONS, 10**6, 80)
    assert kept(output, first) == first
    assert kept(output, recipe_of(OPTIONS, 10**6, None)) == first
