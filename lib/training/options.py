"""What a user says about a training, whatever it is for."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from lib.common.errors import UserError
from lib.models.backbones.registry import BACKBONES, BackboneName
from lib.scoring.placement import Growth
from lib.training.defaults import CPU_BATCH, UseGpu
from lib.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train, and on what.

    Attributes:
        backbone: The network that turns faces into features.
        weights: File of weights for the backbone to start from (.h5 or .keras); none: random ones.
        workers: Processes that train together.
        min_workers: Go on with as few as that while lost ones are not replaced, each of them with
            more of the same batch; default: wait for all.
        use_gpu: Whether each worker gets a GPU; auto: where the cluster has any, or may grow to have.
        cpus: CPUs for each worker; default: all there are, evenly.
        max_cluster: What the cluster's autoscaler may start, where it has one.
        checkpoint_steps: Write a checkpoint every that many steps, too, and not only every epoch.
        pictures_after: Draw the class separation after these epochs, and after the last one.
        keep: How many checkpoints to keep, the last ones; the best weights are kept besides.
        max_failures: How often lost workers are replaced before the run gives up.
        recipe: How to train.
    """

    backbone: BackboneName = "compact"
    weights: Path | None = None
    workers: int = 1
    min_workers: int | None = None
    use_gpu: UseGpu = "auto"
    cpus: float | None = None
    max_cluster: Growth = field(default_factory=Growth)
    checkpoint_steps: int = 0
    pictures_after: tuple[int, ...] = (5, 100, 250)
    keep: int = 2
    max_failures: int = 3
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: names the option and the value.
        """
        for name, least in (
            ("workers", 1), ("checkpoint_steps", 0), ("keep", 1), ("max_failures", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be at least {least}, not {getattr(self, name)}")
        self.max_cluster.check("--max-cluster")
        self._check_elastic()
        if self.cpus is not None and self.cpus <= 0:
            raise UserError(f"--cpus must be above 0, not {self.cpus}")
        if self.weights is not None and not self.weights.is_file():
            raise UserError(f"--weights {str(self.weights)!r} is not a file")
        self.recipe.check()
        if self.recipe.progressive_size and not BACKBONES[self.backbone].any_size:
            raise UserError(f"--progressive-size: {self.backbone} takes crops of one size only")

    def _check_elastic(self) -> None:
        if self.min_workers is None:
            return
        if not 1 <= self.min_workers <= self.workers:
            raise UserError(
                f"--min-workers must be in 1..{self.workers}, the --workers, not {self.min_workers}"
            )
        batch_size = self.recipe.batch_size or CPU_BATCH
        batch = batch_size * self.workers
        for workers in range(self.min_workers, self.workers):
            if batch % workers:
                raise UserError(
                    f"--min-workers {self.min_workers}: the {batch} faces of --workers {self.workers} "
                    f"with --batch-size {batch_size} cannot be shared evenly by {workers}; "
                    "change one of these"
                )

    def weights_sha256(self) -> str | None:
        """Digest of the file of --weights."""
        if self.weights is None:
            return None
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()
