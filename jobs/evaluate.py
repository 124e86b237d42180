"""Measure a model, or labels that are there, against the truth: `python -m jobs.evaluate --help`."""

import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pyarrow.compute as pc
import tyro

from lib.common import options as command_line
from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import Split
from lib.evaluation.comparison import LABEL_COLUMNS, WELCOME_COLUMNS, Comparison
from lib.evaluation.join import join
from lib.evaluation.labelling import label_faces
from lib.evaluation.truth import TruthColumns, read_truth
from lib.faces.registry import (
    DETECTOR_HELP,
    NO_DETECTOR,
    DetectorName,
    DetectorSpec,
)
from lib.models.bundle import DEFAULT_MODEL, read_bundle
from lib.storage.folder import folder
from lib.storage.options import StorageOption, StorageOptions
from lib.storage.parquet_folder import parquet_files, read_columns
from lib.tasks.gender import Gender
from lib.tasks.under_age import OperatingPoint

log = logging.getLogger("evaluate")


@dataclass(frozen=True)
class Options:
    """Measure how good a model is, or labels that are there already.

    Either --data: the model labels faces whose age and gender are known, as jobs.prepare leaves them.
    Or --labels and --truth: labels, as jobs.score leaves them, are compared with a table.

    Attributes:
        output: Folder for metrics.json, metrics.txt and plots/. An earlier evaluation there is
            overwritten.
        data: Folder or s3:// prefix of labelled faces, with split=train, split=val and split=test in it.
        split: Which of these faces.
        model: Bundle folder of the model, or s3:// prefix of one; models/default if not given.
        mirror: Label by the mean over each face and its mirror image.
        labels: Folder or s3:// prefix of label files.
        truth: Table with a row for each image, .csv or .parquet.
        columns: What the columns of the table are called.
        gender_zero: What 0 stands for, if the genders of the table are the numbers 0 and 1.
    """

    output: Path
    data: str | None = None
    split: Split = "test"
    model: str | None = None
    detector: Annotated[DetectorName, tyro.conf.arg(help=DETECTOR_HELP)] = NO_DETECTOR
    mirror: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    labels: str | None = None
    truth: Path | None = None
    columns: TruthColumns = field(default_factory=TruthColumns)
    gender_zero: Gender | None = None
    storage: StorageOption = field(default_factory=StorageOptions)

    def check(self) -> None:
        """Refuse options that do not fit together, and an output that cannot be.

        Raises:
            UserError: names the options.
        """
        of_model = self.data is not None or self.model is not None or self.mirror
        of_labels = self.labels is not None or self.truth is not None
        if of_model and of_labels:
            raise UserError("--model, --data and --mirror, or --labels and --truth: not both")
        if of_labels and (self.labels is None or self.truth is None):
            raise UserError("--labels and --truth need each other")
        if not of_labels and self.data is None:
            raise UserError("nothing to evaluate: give --data, or --labels and --truth")
        _ = self.detector_spec

    @property
    def detector_spec(self) -> DetectorSpec:
        """The detector that was chosen."""
        return DetectorSpec(self.detector)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, put labels and the truth side by side, compare, write."""
    options = command_line.parse(Options, arguments)
    options.check()
    make_output(options.output)
    storage = options.storage.resolved_for(
        options.data or options.labels or "", options.model or ""
    )
    if options.data is not None:
        faces = LabelledFaces(folder(options.data, storage), options.split)
        bundle = read_bundle(folder(options.model or DEFAULT_MODEL, storage))
        comparison = label_faces(bundle, faces, options.detector_spec, mirror=options.mirror)
        points = bundle.card.under_age.operating_points if bundle.card.under_age else ()
    else:
        comparison, points = match_labels(options, storage), ()
    return conclude(comparison, options.output, points)


def make_output(output: Path) -> None:
    """Make the folder for the result, before the work that it is for."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --output {str(output)!r}: {error.strerror}") from None
    if not os.access(output, os.W_OK):
        raise UserError(f"cannot write to --output {str(output)!r}: Permission denied")


def match_labels(options: Options, storage: StorageOptions) -> Comparison:
    """Look up the truth about images that are labelled already."""
    assert options.labels is not None
    assert options.truth is not None
    of_labels = folder(options.labels, storage)
    files = parquet_files(of_labels, "the folder labels/ from jobs/score.py")
    labels = read_columns(of_labels, files, LABEL_COLUMNS, WELCOME_COLUMNS)
    truth = read_truth(options.truth, options.columns, options.gender_zero)
    pairs = join(truth["name"].to_pylist(), labels["uri"].to_pylist())
    log.info("%s", pairs)
    about = {
        "model": ", ".join(sorted(pc.unique(labels["model"]).to_pylist())),
        "labels": str(of_labels),
        "truth": str(options.truth.absolute()),
        "truth_sha256": hashlib.sha256(options.truth.read_bytes()).hexdigest(),
        "matched_by": pairs.by,
        "matched": len(pairs.truth),
        "only_in_truth": len(pairs.truth_alone),
        "only_in_labels": len(pairs.labels_alone),
    }
    return Comparison(truth.take(pairs.truth), labels.take(pairs.labels), about)


def conclude(comparison: Comparison, output: Path, points: Sequence[OperatingPoint]) -> int:
    """Compute, write and show everything."""
    # Plotting takes seconds to import.
    from lib.evaluation.results import write_evaluation

    table = write_evaluation(comparison, output, points)
    sys.stdout.write(f"\n{table}\n\nevaluation: {output}\n")
    return 0


if __name__ == "__main__":
    command_line.run(main, "nothing was written")
