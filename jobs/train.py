"""Train a model on labelled faces, on one or many workers: `python -m jobs.train --help`."""

import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lib.common import options as command_line
from lib.common.code_version import code_version
from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import Split
from lib.datasets.registry import source_of, terms_of
from lib.evaluation.labelling import label_faces
from lib.models.backbones.registry import BACKBONES, BackboneName
from lib.models.bundle import CARD, Bundle, read_bundle
from lib.models.model_card import ModelCard, Teacher, Training
from lib.output.run_lock import RunLock
from lib.output.run_record import RunRecord, claim
from lib.scoring.placement import Cluster, Growth, Placement
from lib.storage.folder import Folder, failures_in_one_line, folder
from lib.storage.options import S3Option, S3Options, StorageOptions
from lib.tasks.calibration import FEWEST_FACES
from lib.training.defaults import (
    CHOSEN,
    CPU_BATCH,
    UseGpu,
    completed,
    gpu_batch,
    gpu_gib,
    kept,
    uses_gpus,
)  # fmt: skip
from lib.training.faces import Labels, read_labels
from lib.training.history import History
from lib.training.recipe import Recipe

if TYPE_CHECKING:
    from ray.train import Checkpoint

log = logging.getLogger("train")

HOW_TO_GO_ON = "the same command goes on where it was"
OWNED = ("best", "bundle", "checkpoints", "metrics.jsonl", "plots", CHOSEN)
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Options:
    """Train a model on labelled faces.

    Stopped or killed at any moment, the same command goes on from the last checkpoint.

    Attributes:
        data: Folder faces/ of jobs.prepare, or s3:// prefix of one, with split=train, split=val and
            split=test in it.
        output: Folder or s3:// prefix for the run: best/, bundle/, checkpoints/, metrics.jsonl, plots/,
            recipe.json, tensorboard/.
        backbone: The network that turns faces into features.
        weights: File of weights for the backbone to start from (.h5 or .keras); none: random ones.
        teachers: Models to learn from, beside the labels: folders or s3:// prefixes of bundles.
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

    data: str
    output: str
    backbone: BackboneName = "compact"
    weights: Path | None = None
    teachers: tuple[str, ...] = ()
    workers: int = 1
    min_workers: int | None = None
    use_gpu: UseGpu = "auto"
    cpus: float | None = None
    max_cluster: Growth = field(default_factory=Growth)
    checkpoint_steps: int = 0
    pictures_after: tuple[int, ...] = (5, 100, 250)
    keep: int = 2
    max_failures: int = 3
    s3: S3Option = field(default_factory=S3Options)
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

    def fingerprint(
        self, labels: dict[Split, Labels], teachers: Sequence[Bundle]
    ) -> dict[str, object]:
        """All that changes the model."""
        return {
            "data": {split: of_split.digest for split, of_split in labels.items()},
            "backbone": self.backbone,
            "weights": self.weights_sha256(),
            "teachers": [bundle.digest for bundle in teachers],
            "workers": self.workers,
            "recipe": asdict(self.recipe),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; gives the exit status."""
    bundle = train_model(command_line.parse(Options, arguments))
    sys.stdout.write(f"bundle: {bundle}\n")
    return 0


def train_model(options: Options) -> Folder:
    """Check the options and the labels, train, and make the bundle; gives its folder.

    Raises:
        UserError: an option is impossible, the data cannot be read, or what stopped the training.
    """
    options.check()
    storage = StorageOptions(options.s3).resolved_for(
        options.data, options.output, *options.teachers
    )
    data, output = folder(options.data, storage), folder(options.output, storage)
    labels = {
        split: read_labels(LabelledFaces(data, split), options.recipe.tasks) for split in SPLITS
    }
    check_batch(options, len(labels["train"]))
    check_validation(len(labels["val"]))
    teachers = read_teachers(options, storage)
    with failures_in_one_line(HOW_TO_GO_ON), RunLock(output):
        claim(
            output, RunRecord("jobs.train", options.fingerprint(labels, teachers), storage), OWNED
        )
        if (output / "bundle").holds(CARD):
            log.info("%s is trained already; nothing to do", output)
            return output / "bundle"
        log.info("faces: %s", ", ".join(f"{len(of)} {split}" for split, of in labels.items()))
        best, recipe = train(options, data, len(labels["train"]), teachers, output)
        make_bundle(options, recipe, data, labels, teachers, best, output)
    return output / "bundle"


def check_batch(options: Options, faces: int) -> None:
    """Refuse to train on less than one step."""
    batch_size = options.recipe.batch_size or CPU_BATCH
    batch = batch_size * options.workers * options.recipe.accumulate
    if faces < batch:
        raise UserError(
            f"the {faces} faces of the split train are fewer than one step takes: {batch}, of "
            f"--workers {options.workers} with --batch-size {batch_size}; lower these"
        )


def check_validation(faces: int) -> None:
    """Refuse to train what could not be calibrated."""
    if faces < FEWEST_FACES:
        raise UserError(
            f"the {faces} faces of the split val are too few to calibrate with: it takes {FEWEST_FACES}"
        )


def read_teachers(options: Options, storage: StorageOptions) -> list[Bundle]:
    """Read the cards of the models to learn from."""
    teachers = [read_bundle(where, storage) for where in options.teachers]
    for where, teacher in zip(options.teachers, teachers, strict=True):
        if not teacher.networks:
            raise UserError(
                f"--teachers: {where!r} is an ONNX graph, which training cannot compute; leave it out"
            )
        if unknown := set(options.recipe.tasks) - set(teacher.networks):
            raise UserError(
                f"--teachers: {where!r} does not tell {' or '.join(sorted(unknown))}; leave it out, or "
                "limit --tasks"
            )
    return teachers


def train(
    options: Options, data: Folder, faces: int, teachers: Sequence[Bundle], output: Folder
) -> "tuple[Checkpoint, Recipe]":
    """Train on the workers until the last epoch; gives the best weights, and how they were trained."""
    # Ray takes seconds to import: an option that cannot work is refused long before.
    from lib.scoring import engine

    with engine.failures_in_one_line(HOW_TO_GO_ON), engine.cluster() as resources:
        from lib.training import allocation, workers

        cluster = Cluster.of(resources, options.max_cluster)
        use_gpu = uses_gpus(options.use_gpu, options.workers, cluster)
        cpus = allocation.cpus_of_each(
            options.workers, options.cpus, use_gpu, cluster, engine.machines()
        )
        recipe = kept(output, recipe_of(options, faces, gpu_gib(resources) if use_gpu else None))
        log.info(
            "%s workers on %s; %s faces a step on each, in %s", options.workers,
            "GPUs" if use_gpu else "CPUs", recipe.batch_size, recipe.precision,
        )  # fmt: skip
        with History(output, recipe.epochs) as history:
            best = workers.run(
                plan=workers.Plan(
                    data, output, options.backbone,
                    options.weights and options.weights.resolve(), tuple(teachers),
                    recipe, options.checkpoint_steps, options.pictures_after, options.workers,
                ),
                least_workers=options.min_workers,
                cpus=cpus,
                use_gpu=use_gpu,
                keep=options.keep,
                max_failures=options.max_failures,
                history=history,
            )  # fmt: skip
        return best, recipe


def recipe_of(options: Options, faces: int, gib: float | None) -> Recipe:
    """The recipe with defaults where the user left it to them.

    Args:
        options: of the job.
        faces: to train on.
        gib: memory of the GPU of a worker; None: it has none.
    """
    spec, batch = BACKBONES[options.backbone], CPU_BATCH
    # Workers that may be lost share the batch, which `Options.check` has found possible for this one.
    if gib is not None and options.min_workers is None:
        of_each = faces // (options.workers * options.recipe.accumulate)
        batch = gpu_batch(spec, gib, options.recipe.size or spec.size, of_each)
    return completed(options.recipe, spec, options.weights is not None, batch, gib is None)


def trained_before(weights: Path | None) -> Training | None:
    """How the weights that training starts from were trained, where they are of a bundle."""
    if weights is None:
        return None
    try:
        card = json.loads((weights.parent / CARD).read_text("utf-8"))
        return ModelCard.from_dict(card).training
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def make_bundle(
    options: Options,
    recipe: Recipe,
    data: Folder,
    labels: dict[Split, Labels],
    teachers: Sequence[Bundle],
    best: "Checkpoint",
    output: Folder,
) -> None:
    """Save the networks, calibrate them on validation, measure them on test, complete the card."""
    from lib.common import tensorflow_settings  # noqa: F401 - it quiets TensorFlow; isort: skip
    from lib.evaluation.honesty import turns_of
    from lib.training.card import calibrate, save, with_metrics, with_text

    unfinished = output / "unfinished"

    def label(bundle: Path, split: Split) -> Any:
        unfinished.upload(bundle, last=CARD)  # to where all machines can read it
        faces = LabelledFaces(data, split)
        return label_faces(
            read_bundle(unfinished), faces, placement=Placement(max_cluster=options.max_cluster)
        )

    training = Training(
        source=source_of(data),
        terms=terms_of(data),
        data_sha256={split: of_split.digest for split, of_split in labels.items()},
        faces={split: len(of_split) for split, of_split in labels.items()},
        backbone=options.backbone,
        weights=options.weights.name if options.weights else None,
        weights_sha256=options.weights_sha256(),
        weights_training=trained_before(options.weights),
        teachers=tuple(Teacher(t.name, t.digest, t.card.training) for t in teachers),
        workers=options.workers,
        recipe=asdict(recipe),
    )
    with tempfile.TemporaryDirectory() as temporary, best.as_directory() as checkpoint:
        bundle = Path(temporary)
        save(Path(checkpoint), options.backbone, recipe, bundle, training, code_version())
        log.info("calibrating on the split val, measuring on the split test")
        calibrate(
            bundle, label(bundle, "val"), turns_of(LabelledFaces(data, "val"), len(labels["val"]))
        )
        with_metrics(bundle, label(bundle, "test"))
        with_text(bundle)
        (output / "bundle").upload(bundle, last=CARD)
    unfinished.delete_all()


if __name__ == "__main__":
    command_line.run(main, HOW_TO_GO_ON)
