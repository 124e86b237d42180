"""Label every image of an archive with age and gender: `python -m jobs.score --help`."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jobs.telemetry import RunMetrics
from lib import logs, run_record
from lib import options as command_line
from lib.archive import Archive, ManifestSummary, read_summary, write_manifest
from lib.commits import committed, roll_back, write_remaining
from lib.errors import UserError
from lib.faces.detector import DetectorSpec, Kind
from lib.images import Limits
from lib.labels import LabelCounts, count_faces, rows_missing_and_repeated
from lib.models.bundle import Bundle, read_bundle
from lib.placement import AGE, FACES, GENDER, TASK_CPUS, Cluster, Growth, Layout, Size, place
from lib.progress import Progress
from lib.stages.fetch import Fetch
from lib.stages.label import model_id
from lib.summary import Summary, first_rows

log = logging.getLogger("score")

PROGRAM = "python -m jobs.score"
FAILED, INTERRUPTED = 1, 130
HOW_TO_GO_ON = "the same command goes on where it was"


@dataclass(frozen=True)
class Options:
    """Label every image of an archive with age and gender.

    Stopped or killed at any moment, the same command goes on where it was.

    Attributes:
        images: Folders, searched recursively, or image files.
        output: Folder for the result: labels/, manifest/, run.json, summary.json.
        model: Bundle folder of the model.
        detector: Who finds the faces. none: the images are face crops already.
        detector_weights: ONNX file with the weights, for yunet.
        age_distribution: Write the whole distribution of each age, too: 101 numbers a face.
        limit: Label only the first N images.
        max_image_pixels: An image of more pixels is not decoded, and gets the status too_large.
        max_image_bytes: The same for the bytes of the file.
        max_error_rate: Share of images with an error status above which the job fails.
        layout: fused: one pool does all where it can; separate: faces, age and gender each have one.
        faces: Workers that fetch, decode, detect and crop.
        age: Workers of the age model, or of both models with fused on GPUs.
        gender: Workers of the gender model.
        grows_to: What the cluster's autoscaler may start, where it has one.
        log_json: Log a JSON object a line, with the id of the run, for machines.
    """

    images: tuple[str, ...]
    output: Path
    model: Path = Path("models/default")
    detector: Kind = "mtcnn"
    detector_weights: str | None = None
    age_distribution: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    limit: int | None = None
    max_image_pixels: int = Limits.max_pixels
    max_image_bytes: int = Limits.max_bytes
    max_error_rate: float = 1.0
    layout: Layout = "auto"
    faces: Size = field(default_factory=Size)
    age: Size = field(default_factory=Size)
    gender: Size = field(default_factory=Size)
    grows_to: Growth = field(default_factory=Growth)
    log_json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: names the option and the value.
        """
        if not self.images:
            raise UserError("--images needs at least one folder or file")
        for name in ("limit", "max_image_pixels", "max_image_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if not 0 <= self.max_error_rate <= 1:
            raise UserError(f"--max-error-rate must be in 0..1, not {self.max_error_rate}")
        for pool in ("faces", "age", "gender"):
            getattr(self, pool).check(f"--{pool}")
        self.grows_to.check("--grows-to")
        self.detector_spec.check()

    @property
    def sizes(self) -> dict[str, Size]:
        """What is wanted of each pool."""
        return {FACES: self.faces, AGE: self.age, GENDER: self.gender}

    @property
    def detector_spec(self) -> DetectorSpec:
        """The detector that was chosen."""
        weights = self.detector_weights
        return DetectorSpec(
            self.detector, None if weights is None else str(Path(weights).resolve())
        )

    @property
    def limits(self) -> Limits:
        """What is not decoded."""
        return Limits(self.max_image_pixels, self.max_image_bytes)

    def fingerprint(self, bundle: Bundle) -> dict[str, object]:
        """All that changes a label, or which images there are."""
        return {
            "images": [i if "://" in i else str(Path(i).absolute()) for i in self.images],
            "limit": self.limit,
            "model": model_id(bundle),
            "detector": self.detector_spec.digest(),
            "max_image_pixels": self.max_image_pixels,
            "max_image_bytes": self.max_image_bytes,
            "age_distribution": self.age_distribution,
        }

    def run_id(self, bundle: Bundle) -> str:
        """Names the run in logs and metrics."""
        return run_record.run_id(self.output.absolute(), self.fingerprint(bundle))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, list, label, verify, sum up; the status says whether the result can be trusted."""
    options = command_line.parse(Options, arguments, PROGRAM)
    options.check()
    bundle = read_bundle(options.model.resolve())
    if options.log_json:
        logs.as_json(options.run_id(bundle))
    archive = Archive(options.images, options.limit)
    run_record.claim(options.output, options.fingerprint(bundle), {"model": dict(bundle.card)})
    try:
        manifest = list_images(archive, options.output)
        summary = label_images(options, bundle, manifest)
    except KeyboardInterrupt:
        log.info("stopped; %s", HOW_TO_GO_ON)
        return INTERRUPTED
    return verdict(options, summary)


def list_images(archive: Archive, output: Path) -> ManifestSummary:
    """List the archive once; a run that goes on has its list already."""
    folder = output / "manifest"
    if not folder.exists():
        write_manifest(archive, str(folder))
    manifest = read_summary(str(folder))
    log.info("%s images to label", f"{manifest.images:,}")
    return manifest


def label_images(options: Options, bundle: Bundle, manifest: ManifestSummary) -> Summary:
    """Label all images that have no row yet."""
    labels, checkpoint = options.output / "labels", options.output / "checkpoint"
    remaining = options.output / "remaining.parquet"
    roll_back(labels, checkpoint)
    done = committed(checkpoint, manifest.images)
    count = write_remaining(options.output / "manifest", done, remaining)
    counts = LabelCounts(labels)
    started = time.monotonic()
    work_seconds: dict[str, float] = {}
    if count:
        run = options.run_id(bundle)
        with Progress(manifest.images, counts.update, tell=RunMetrics(run, manifest.images)):
            work_seconds = run_pipeline(options, bundle, remaining, count)
    else:
        log.info("all images have their row already; nothing to do")
    remaining.unlink()
    statuses = counts.update()
    return Summary(
        images=manifest.images,
        skipped=manifest.skipped,
        statuses=statuses,
        faces=count_faces(labels),
        model=model_id(bundle),
        seconds=time.monotonic() - started,
        images_this_time=count,
        work_seconds=work_seconds,
    )


def run_pipeline(options: Options, bundle: Bundle, remaining: Path, count: int) -> dict[str, float]:
    """Manifest → fetch → faces → age, gender → label rows, streaming; gives the seconds of work."""
    # Ray takes seconds to import: an option that cannot work is refused long before.
    from jobs import engine, pipeline, rates

    output = options.output.resolve()
    columns = ["id", "uri"]
    labelling = pipeline.Labelling(
        source=Fetch(options.max_image_bytes),
        detector=options.detector_spec,
        limits=options.limits,
        bundle=bundle,
        age_distribution=options.age_distribution,
    )
    with engine.failures_in_one_line(HOW_TO_GO_ON), engine.cluster() as resources:
        pools = place(
            options.layout,
            bundle.trunk is not None,
            Cluster(resources.get("CPU", 0), resources.get("GPU", 0), options.grows_to),
            options.sizes,
            bundle.weight_bytes,
        )
        pools = rates.sized(labelling, pools, options.sizes, remaining, columns)
        engine.commit_rows_in(output / "checkpoint")
        work_seconds = engine.WorkSeconds(options.run_id(bundle))
        rows = pipeline.read_rows([remaining.resolve()], columns, count)
        rows = pipeline.label(rows, labelling, pools, work_seconds)
        rows.write_parquet(str(output / "labels"), ray_remote_args={"num_cpus": TASK_CPUS})
        return work_seconds.total()


def verdict(options: Options, summary: Summary) -> int:
    """Check the result, sum up, and give the exit status."""
    missing, repeated = rows_missing_and_repeated(options.output / "labels", summary.images)
    summary.write(options.output)
    sys.stdout.write(f"\n{summary}\n\n{first_rows(options.output / 'labels')}\n\n")
    if missing or repeated:
        log.error("error: %d images have no row, %d rows are too many", missing, repeated)
        return FAILED
    if summary.error_rate > options.max_error_rate:
        log.error(
            "error: %.1f%% of the images could not be labelled, more than --max-error-rate %g; "
            "the column error of %s says why",
            100 * summary.error_rate, options.max_error_rate, options.output / "labels",
        )  # fmt: skip
        return FAILED
    sys.stdout.write(f"labels: {options.output / 'labels'}\n")
    return 0


if __name__ == "__main__":
    command_line.run(main)
