"""Find labels that are probably wrong: `python -m jobs.audit --help`."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields

import numpy as np

from lib.audit.faces import AuditedFaces, FaceLabels
from lib.audit.interview import FOLDER as OPINIONS
from lib.audit.interview import Interview
from lib.audit.opinions import Opinions
from lib.audit.results import Audit, in_words, write_results
from lib.audit.suspicion import suspicion
from lib.common import options as command_line
from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import SPLITS
from lib.datasets.suspects import FILE
from lib.faces.registry import DetectorSpec
from lib.models.bundle import Bundle, read_bundle
from lib.output.run_lock import RunLock
from lib.output.run_record import RunRecord, claim
from lib.scoring.placement import Placement
from lib.scoring.stages.rows import model_id
from lib.storage.folder import Folder, failures_in_one_line, folder
from lib.storage.options import S3Option, S3Options, StorageOptions
from lib.training.faces import read_labels
from lib.training.options import TrainingOptions
from lib.training.run import Run, train

log = logging.getLogger("audit")

HOW_TO_GO_ON = "the same command goes on where it was"
FOLDS = "folds"
PAGE = "audit.html"
MOST_FOLDS = 100


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Find faces whose labels are probably wrong, by models that have not learnt from these labels.

    Either models are trained here, as jobs.train does, one for each fold on the faces of all other folds;
    or --models names some. Killed at any moment, the same command goes on where it was: a fold that is
    trained is not trained again. The labels are left as they are; jobs.train --suspects takes the result.

    Attributes:
        data: Folder faces/ of jobs.prepare, or s3:// prefix of one.
        output: Folder or s3:// prefix for suspects.parquet, ranked/, audit.html, summary.json, and
            what the run works with: folds/, opinions/.
        folds: How many models to train. Faces of one person are in one fold, where the data set names
            people, else faces of one picture.
        models: Bundles to ask in place of training any; they must not have learnt from these labels.
    """

    data: str
    output: str
    folds: int = 3
    models: tuple[str, ...] = ()
    s3: S3Option = field(default_factory=S3Options)

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: names the option and the value.
        """
        super().check()
        if not 2 <= self.folds <= MOST_FOLDS:
            raise UserError(f"--folds must be in 2..{MOST_FOLDS}, not {self.folds}")
        if self.recipe.suspect_weight:
            raise UserError("--suspect-weight is for jobs.train; leave it out")
        usual = TrainingOptions()
        names = [f.name for f in fields(usual) if f.name != "max_cluster"]
        if self.models and any(getattr(self, name) != getattr(usual, name) for name in names):
            raise UserError("--models: nothing is trained, so leave out the options of training")

    def fingerprint(self, labels: FaceLabels, models: Sequence[Bundle]) -> dict[str, object]:
        """All that changes the result."""
        how: dict[str, object] = {"models": [bundle.digest for bundle in models]}
        if not models:
            how = {
                "folds": self.folds,
                "backbone": self.backbone,
                "weights": self.weights_sha256(),
                "workers": self.workers,
                "recipe": asdict(self.recipe),
            }
        return {"data": labels.digest, "detector": DetectorSpec().digest(), **how}


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask models about all faces, judge the labels, write."""
    options = command_line.parse(Options, arguments)
    options.check()
    storage = StorageOptions(options.s3).resolved_for(options.data, options.output, *options.models)
    output = folder(options.output, storage)
    faces = AuditedFaces(folder(options.data, storage))
    named = [read_bundle(where, storage) for where in options.models]
    labels = faces.labels(1 if named else options.folds)
    runs = [] if named else fold_runs(options, faces, labels, output)
    placement, opinions = Placement(max_cluster=options.max_cluster), Opinions.none(len(labels))
    interview = Interview(faces, labels, output, placement, HOW_TO_GO_ON, opinions)
    with failures_in_one_line(HOW_TO_GO_ON), RunLock(output):
        fingerprint = options.fingerprint(labels, named)
        claim(output, RunRecord("jobs.audit", fingerprint, storage), (FOLDS, OPINIONS))
        models = ask_named(interview, named) if named else ask_folds(interview, runs)
        judged = suspicion(labels, opinions)
        conclude(Audit(faces, labels, opinions, judged, models, len(runs)), output)
    return 0


def fold_runs(
    options: Options, faces: AuditedFaces, labels: FaceLabels, output: Folder
) -> list[Run]:
    """The training of each fold, on the faces of all others.

    Raises:
        UserError: there are too few faces for so many folds, or labels are missing.
    """
    data = faces.folder
    of_splits = {
        split: read_labels(LabelledFaces(data, split), options.recipe.tasks) for split in SPLITS
    }
    runs = []
    for fold in range(options.folds):
        others = (labels.folds != fold).astype(np.float32)
        weights = {split: faces.of_split(others, split) for split in SPLITS}
        run = Run(options, data, output / FOLDS / str(fold), of_splits, face_weights=weights)
        run.check()
        runs.append(run)
    return runs


def ask_named(interview: Interview, models: Sequence[Bundle]) -> list[str]:
    """Ask each of the user's models about all faces; gives their names."""
    for number, bundle in enumerate(models):
        log.info("model %d of %d: %s", number + 1, len(models), model_id(bundle))
        # One look at the pictures is enough.
        interview.ask(f"model-{number}", bundle, fold=None, look=number == 0)
    return [model_id(bundle) for bundle in models]


def ask_folds(interview: Interview, runs: Sequence[Run]) -> list[str]:
    """Train the model of each fold, and ask it about the faces of this fold; gives their names."""
    models = []
    for fold, run in enumerate(runs):
        log.info("fold %d of %d", fold + 1, len(runs))
        bundle = read_bundle(train(run, HOW_TO_GO_ON))
        interview.ask(f"fold-{fold}", bundle, fold, look=True)
        models.append(model_id(bundle))
    return models


def conclude(audit: Audit, output: Folder) -> None:
    """Write and show everything."""
    # What draws takes a second to import.
    from lib.audit.page import html

    listed = write_results(audit, output)
    output.write(PAGE, html(audit, listed).encode())
    sys.stdout.write(f"{in_words(audit)}\nsuspects: {output}/{FILE}\npage: {output}/{PAGE}\n")


if __name__ == "__main__":
    command_line.run(main, HOW_TO_GO_ON)
