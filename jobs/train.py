"""Train a model on labelled faces, on one or many workers: `python -m jobs.train --help`."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from lib.common import options as command_line
from lib.common.errors import UserError, reason_of
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import SPLITS, Split
from lib.datasets.suspects import suspect_weights
from lib.models.bundle import Bundle, read_bundle
from lib.output.run_lock import RunLock
from lib.output.run_record import RunRecord, claim
from lib.storage.folder import Folder, failures_in_one_line, folder
from lib.storage.options import S3Option, S3Options, StorageOptions
from lib.training.faces import Labels, read_labels
from lib.training.options import TrainingOptions
from lib.training.run import OWNED, Run, train

HOW_TO_GO_ON = "the same command goes on where it was"


@dataclass(frozen=True)
class Options(TrainingOptions):
    """Train a model on labelled faces.

    Stopped or killed at any moment, the same command goes on from the last checkpoint.

    Attributes:
        data: Folder faces/ of jobs.prepare, or s3:// prefix of one, with split=train, split=val and
            split=test in it.
        output: Folder or s3:// prefix for the run: best/, bundle/, checkpoints/, metrics.jsonl, plots/,
            recipe.json, tensorboard/.
        teachers: Models to learn from, beside the labels: folders or s3:// prefixes of bundles.
        suspects: File suspects.parquet of jobs.audit, local or in a bucket: its suspect faces of the
            split train count by --suspect-weight.
    """

    data: str
    output: str
    teachers: tuple[str, ...] = ()
    suspects: str | None = None
    s3: S3Option = field(default_factory=S3Options)

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: names the option and the value.
        """
        super().check()
        if self.recipe.suspect_weight and self.suspects is None:
            weight = self.recipe.suspect_weight
            raise UserError(f"--suspect-weight {weight:g} needs --suspects, the file of jobs.audit")

    def fingerprint(
        self, labels: dict[Split, Labels], teachers: Sequence[Bundle], suspects: str | None
    ) -> dict[str, object]:
        """All that changes the model."""
        return {
            "data": {split: of_split.digest for split, of_split in labels.items()},
            "backbone": self.backbone,
            "weights": self.weights_sha256(),
            "teachers": [bundle.digest for bundle in teachers],
            "suspects": suspects,
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
        options.data, options.output, *options.teachers, options.suspects or ""
    )
    data, output = folder(options.data, storage), folder(options.output, storage)
    labels = {
        split: read_labels(LabelledFaces(data, split), options.recipe.tasks) for split in SPLITS
    }
    teachers = read_teachers(options, storage)
    run = Run(options, data, output, labels, tuple(teachers))
    if options.suspects is not None:
        run = with_suspects(run, options.suspects, storage)
    run.check()
    with failures_in_one_line(HOW_TO_GO_ON), RunLock(output):
        fingerprint = options.fingerprint(labels, teachers, run.suspects_sha256)
        claim(output, RunRecord("jobs.train", fingerprint, storage), OWNED)
        return train(run, HOW_TO_GO_ON)


def with_suspects(run: Run, file: str, storage: StorageOptions) -> Run:
    """The run, in which the suspect faces of the split train count by --suspect-weight."""
    where, name = folder(file, storage).parent, file.rpartition("/")[2]
    try:
        digest = hashlib.sha256(where.read(name)).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read --suspects {file!r}: {reason_of(error)}") from None
    faces = LabelledFaces(run.data, "train")
    weights = suspect_weights(name, where, faces, run.options.recipe.suspect_weight)
    return replace(run, face_weights={"train": weights}, suspects_sha256=digest)


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


if __name__ == "__main__":
    command_line.run(main, HOW_TO_GO_ON)
