"""A training run from labelled faces to a bundle: jobs.train does one, jobs.audit one for each fold."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lib.common.code_version import code_version
from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import Split
from lib.datasets.registry import source_of, terms_of
from lib.evaluation.comparison import Comparison
from lib.evaluation.labelling import label_faces
from lib.models.backbones.registry import BACKBONES
from lib.models.bundle import CARD, Bundle, read_bundle
from lib.models.model_card import ModelCard, Teacher, Training
from lib.scoring.placement import Cluster, Placement
from lib.storage.folder import Folder, failures_in_one_line
from lib.tasks.calibration import FEWEST_FACES
from lib.training.defaults import CHOSEN, CPU_BATCH, completed, gpu_batch, gpu_gib, kept, uses_gpus
from lib.training.faces import Labels
from lib.training.history import History
from lib.training.options import TrainingOptions
from lib.training.recipe import Recipe

if TYPE_CHECKING:
    from ray.train import Checkpoint

log = logging.getLogger("train")

OWNED = ("best", "bundle", "checkpoints", "metrics.jsonl", "plots", CHOSEN)
"""What a run makes in its output."""


@dataclass(frozen=True)
class Run:
    """What is to be trained.

    Attributes:
        options: of the user.
        data: folder of labelled faces.
        output: folder of the run.
        labels: of each split.
        teachers: models to learn from, beside the labels.
        face_weights: of a split float32 (n,): how much each face counts; one of 0 takes no part. Splits
            that are missing count as they are.
        suspects_sha256: digest of the file that the weights are from.
    """

    options: TrainingOptions
    data: Folder
    output: Folder
    labels: Mapping[Split, Labels]
    teachers: tuple[Bundle, ...] = ()
    face_weights: Mapping[Split, NDArray[np.float32]] = field(default_factory=dict)
    suspects_sha256: str | None = None

    @property
    def faces(self) -> Mapping[Split, int]:
        """Faces of each split that take part."""
        return {split: int(self.counted(split).sum()) for split in self.labels}

    def counted(self, split: Split) -> NDArray[np.bool_]:
        """Which faces of a split take part, (n,)."""
        weights = self.face_weights.get(split)
        return np.ones(len(self.labels[split]), bool) if weights is None else weights > 0

    def check(self) -> None:
        """Refuse to train on less than one step, and what could not be calibrated.

        Raises:
            UserError: names the split and its faces.
        """
        recipe, workers, faces = self.options.recipe, self.options.workers, self.faces
        batch_size = recipe.batch_size or CPU_BATCH
        batch = batch_size * workers * recipe.accumulate
        if faces["train"] < batch:
            raise UserError(
                f"the {faces['train']} faces of the split train are fewer than one step takes: {batch}, "
                f"of --workers {workers} with --batch-size {batch_size}; lower these"
            )
        if faces["val"] < FEWEST_FACES:
            raise UserError(
                f"the {faces['val']} faces of the split val are too few to calibrate with: it takes "
                f"{FEWEST_FACES}"
            )


def train(run: Run, remedy: str) -> Folder:
    """Train and make the bundle, unless it is there; gives its folder.

    Args:
        run: what is to be trained; it goes on from its last checkpoint.
        remedy: what the user can do where it stops.

    Raises:
        UserError: what stopped the training.
    """
    bundle = run.output / "bundle"
    if bundle.holds(CARD):
        log.info("%s is trained already; nothing to do", run.output)
        return bundle
    log.info("faces: %s", ", ".join(f"{of:,} {split}" for split, of in run.faces.items()))
    # Ray takes seconds to import: an option that cannot work is refused long before.
    from lib.scoring import engine

    with engine.failures_in_one_line(remedy), engine.cluster() as resources:
        best, recipe = _best_weights(run, resources, engine.machines())
        with failures_in_one_line(remedy):
            _make_bundle(run, recipe, best)
    return bundle


def recipe_of(options: TrainingOptions, faces: int, gib: float | None) -> Recipe:
    """The recipe with defaults where the user left it to them.

    Args:
        options: of the job.
        faces: to train on.
        gib: memory of the GPU of a worker; None: it has none.
    """
    spec, batch = BACKBONES[options.backbone], CPU_BATCH
    # Workers that may be lost share the batch, which the options' check has found possible for this one.
    if gib is not None and options.min_workers is None:
        of_each = faces // (options.workers * options.recipe.accumulate)
        batch = gpu_batch(spec, gib, options.recipe.size or spec.size, of_each)
    return completed(options.recipe, spec, options.weights is not None, batch, gib is None)


def _best_weights(
    run: Run, resources: Mapping[str, float], machines: Sequence[Mapping[str, float]]
) -> "tuple[Checkpoint, Recipe]":
    """Train on the workers until the last epoch; gives the best weights, and how they were trained."""
    from lib.training import allocation, workers

    options = run.options
    cluster = Cluster.of(resources, options.max_cluster)
    use_gpu = uses_gpus(options.use_gpu, options.workers, cluster)
    cpus = allocation.cpus_of_each(options.workers, options.cpus, use_gpu, cluster, machines)
    gib = gpu_gib(resources) if use_gpu else None
    recipe = kept(run.output, recipe_of(options, run.faces["train"], gib))
    log.info(
        "%s workers on %s; %s faces a step on each, in %s", options.workers,
        "GPUs" if use_gpu else "CPUs", recipe.batch_size, recipe.precision,
    )  # fmt: skip
    with History(run.output, recipe.epochs) as history:
        best = workers.run(
            plan=workers.Plan(
                run.data, run.output, options.backbone,
                options.weights and options.weights.resolve(), run.teachers, run.face_weights,
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


def _make_bundle(run: Run, recipe: Recipe, best: "Checkpoint") -> None:
    """Save the networks, calibrate them on validation, measure them on test, complete the card."""
    from lib.common import tensorflow_settings  # noqa: F401 - it quiets TensorFlow; isort: skip
    from lib.training.card import complete, save

    options, unfinished = run.options, run.output / "unfinished"

    def label(split: Split, mirror: bool) -> Comparison:
        unfinished.upload(bundle, last=CARD)  # to where all machines can read it
        placement = Placement(max_cluster=options.max_cluster)
        labelled = label_faces(
            read_bundle(unfinished),
            LabelledFaces(run.data, split),
            placement=placement,
            mirror=mirror,
        )
        return _only(labelled, run.counted(split))

    training = Training(
        source=source_of(run.data),
        terms=terms_of(run.data),
        data_sha256={split: of_split.digest for split, of_split in run.labels.items()},
        faces={str(split): count for split, count in run.faces.items()},
        backbone=options.backbone,
        weights=options.weights.name if options.weights else None,
        weights_sha256=options.weights_sha256(),
        weights_training=_trained_before(options.weights),
        teachers=tuple(Teacher(t.name, t.digest, t.card.training) for t in run.teachers),
        workers=options.workers,
        recipe=asdict(recipe),
        suspects_sha256=run.suspects_sha256,
    )
    with tempfile.TemporaryDirectory() as temporary, best.as_directory() as checkpoint:
        bundle = Path(temporary)
        save(Path(checkpoint), options.backbone, recipe, bundle, training, code_version())
        log.info("calibrating on the split val, measuring on the split test")
        complete(bundle, label, LabelledFaces(run.data, "val"), len(run.labels["val"]))
        (run.output / "bundle").upload(bundle, last=CARD)
    unfinished.delete_all()


def _only(comparison: Comparison, faces: NDArray[np.bool_]) -> Comparison:
    """A comparison of some of the faces."""
    some = pa.array(faces)
    truth, labels = comparison.truth.filter(some), comparison.labels.filter(some)
    return replace(comparison, truth=truth, labels=labels)


def _trained_before(weights: Path | None) -> Training | None:
    """How the weights that training starts from were trained, where they are of a bundle."""
    if weights is None:
        return None
    try:
        card = json.loads((weights.parent / CARD).read_text("utf-8"))
        return ModelCard.from_dict(card).training
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
