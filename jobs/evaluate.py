"""Measure a model, or labels that are there, against the truth: `python -m jobs.evaluate --help`."""

import hashlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from lib.common import options as command_line
from lib.common.errors import UserError
from lib.common.progress import Progress
from lib.datasets.labelled_faces import IMAGE_COLUMNS, LabelledFaces, digest
from lib.datasets.labels import Split
from lib.evaluation.comparison import LABEL_COLUMNS, WELCOME_COLUMNS, Comparison
from lib.evaluation.join import join
from lib.evaluation.truth import TruthColumns, read_truth
from lib.faces.registry import DetectorSpec, Kind
from lib.images import Limits
from lib.models.bundle import Bundle, read_bundle
from lib.scoring.placement import AGE, FACES, GENDER, Cluster, Growth, Size, place
from lib.scoring.stages.rows import model_id
from lib.scoring.stages.unpack import Unpack
from lib.storage.files import folder
from lib.storage.parquet_folder import parquet_files, read_columns
from lib.tasks.gender import Gender

if TYPE_CHECKING:
    import ray.data

log = logging.getLogger("evaluate")

PROGRAM = "python -m jobs.evaluate"
INTERRUPTED = 130
DEFAULT_MODEL = "models/default"


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
        detector: Who finds the faces. deepface: as the package of that name has mtcnn do it, same
            boxes, for more work. none: the images are face crops already.
        detector_weights: ONNX file with the weights, for yunet.
        labels: Folder or s3:// prefix of label files.
        truth: Table with a row for each image, .csv or .parquet.
        columns: What the columns of the table are called.
        gender_zero: What 0 stands for, if the genders of the table are the numbers 0 and 1.
    """

    output: Path
    data: str | None = None
    split: Split = "test"
    model: str | None = None
    detector: Kind = "none"
    detector_weights: str | None = None
    labels: str | None = None
    truth: Path | None = None
    columns: TruthColumns = field(default_factory=TruthColumns)
    gender_zero: Gender | None = None

    def check(self) -> None:
        """Refuse options that do not fit together, and an output that cannot be.

        Raises:
            UserError: names the options.
        """
        of_model = self.data is not None or self.model is not None
        of_labels = self.labels is not None or self.truth is not None
        if of_model and of_labels:
            raise UserError("--model and --data, or --labels and --truth: not both")
        if of_labels and (self.labels is None or self.truth is None):
            raise UserError("--labels and --truth need each other")
        if not of_labels and self.data is None:
            raise UserError("nothing to evaluate: give --data, or --labels and --truth")
        self.detector_spec.check()

    @property
    def detector_spec(self) -> DetectorSpec:
        """The detector that was chosen."""
        weights = self.detector_weights
        return DetectorSpec(
            self.detector, None if weights is None else str(Path(weights).resolve())
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, put labels and the truth side by side, compare, write."""
    options = command_line.parse(Options, arguments, PROGRAM)
    options.check()
    make_output(options.output)
    try:
        if options.data is not None:
            faces = LabelledFaces(folder(options.data), options.split)
            bundle = read_bundle(options.model or DEFAULT_MODEL)
            comparison = label_faces(bundle, faces, options.detector_spec)
        else:
            comparison = match_labels(options)
        return conclude(comparison, options.output)
    except KeyboardInterrupt:
        log.info("stopped; nothing was written")
        return INTERRUPTED


def make_output(output: Path) -> None:
    """Make the folder for the result, before the work that it is for."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --output {str(output)!r}: {error.strerror}") from None
    if not os.access(output, os.W_OK):
        raise UserError(f"cannot write to --output {str(output)!r}: Permission denied")


def label_faces(
    bundle: Bundle, faces: LabelledFaces, detector: DetectorSpec, growth: Growth | None = None
) -> Comparison:
    """Let a model label faces whose truth is known, on a cluster that may grow."""
    truth = faces.truth()
    log.info("%s faces to label", f"{len(truth):,}")
    labels = run_pipeline(bundle, faces, detector, len(truth), growth)
    rows = pc.index_in(truth["sha256"], labels["uri"])
    if rows.null_count:
        raise RuntimeError(f"{rows.null_count} faces have come back without a label row")
    about = {
        "model": model_id(bundle),
        "data": str(faces.folder),
        "split": faces.split,
        "data_sha256": digest(truth["sha256"]),
        "detector": detector.digest(),
    }
    return Comparison(truth, labels.take(rows), about)


def run_pipeline(
    bundle: Bundle,
    faces: LabelledFaces,
    detector: DetectorSpec,
    count: int,
    growth: Growth | None,
) -> pa.Table:
    """Faces → crops → age, gender → label rows, streaming; in any order."""
    # Ray takes seconds to import: an option that cannot work is refused long before.
    from lib.scoring import engine, pipeline

    labelling = pipeline.Labelling(Unpack(), detector, Limits(), bundle, age_distribution=True)
    with engine.failures_in_one_line("run it again"), engine.cluster() as resources:
        pools = place(
            "auto",
            bundle.backbone is not None,
            Cluster.of(resources, growth),
            {name: Size() for name in (FACES, AGE, GENDER)},
            bundle.weight_bytes,
            pipeline.block_count(count),
        )
        pools = pipeline.with_work(pools, bundle)
        rows = pipeline.read_rows(faces.files, IMAGE_COLUMNS, count, faces.folder.filesystem)
        return collect(pipeline.label(rows, labelling, pools), count)


def collect(rows: "ray.data.Dataset", count: int) -> pa.Table:
    """Wait for all label rows, and keep of them what is compared."""
    counts: Counter[str] = Counter()
    parts = []
    # The stream of now: while a cluster runs, another one leads to the terminal.
    with Progress(count, counts.copy, sys.stderr):
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            parts.append(batch.select([*LABEL_COLUMNS, *WELCOME_COLUMNS]))
            counts.update(batch["status"].to_pylist())
    return pa.concat_tables(parts)


def match_labels(options: Options) -> Comparison:
    """Look up the truth about images that are labelled already."""
    assert options.labels is not None
    assert options.truth is not None
    of_labels = folder(options.labels)
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


def conclude(comparison: Comparison, output: Path) -> int:
    """Compute, write and show everything."""
    # Plotting takes seconds to import.
    from lib.evaluation.results import write_evaluation

    table = write_evaluation(comparison, output)
    sys.stdout.write(f"\n{table}\n\nevaluation: {output}\n")
    return 0


if __name__ == "__main__":
    command_line.run(main)
