"""Label every image of an archive with age and gender: `python -m jobs.score --help`."""

import logging
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from lib.archive import run_outputs
from lib.archive.archive import Archive, Reading
from lib.archive.manifest import SCHEMA, Manifest, read_manifest, update, write_manifest
from lib.common import logs
from lib.common import options as command_line
from lib.common.errors import UserError
from lib.common.progress import Progress
from lib.faces.registry import (
    DEFAULT_DETECTOR,
    DETECTOR_HELP,
    DetectorName,
    DetectorSpec,
)
from lib.images import Limits
from lib.models.bundle import Bundle, PrecisionChoice, read_bundle
from lib.output.commits import committed, compact, forget, ids_with_status, recover, write_remaining
from lib.output.counts import LabelCounts, count_faces, rows_missing_and_repeated
from lib.output.run_lock import RunLock
from lib.output.run_record import RunRecord, claim, run_id
from lib.output.summary import Summary, first_rows
from lib.scoring import on_this_machine
from lib.scoring.labelling import Labelling
from lib.scoring.placement import Growth, Layout, Placement, Size
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Rows, block_rows
from lib.scoring.schema import STATUSES, label_columns
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.rows import model_id
from lib.scoring.telemetry import RunMetrics
from lib.storage.folder import Folder, failures_in_one_line, folder
from lib.storage.options import TIMEOUT_SECONDS, StorageOption, StorageOptions
from lib.storage.uris import local_uri
from lib.tasks.under_age import ADULT_AGE, check_threshold

log = logging.getLogger("score")

FAILED = 1
HOW_TO_GO_ON = "the same command goes on where it was"


@dataclass(frozen=True)
class Options:
    """Label every image of an archive with age and gender.

    Stopped or killed at any moment, the same command goes on where it was.

    Attributes:
        images: Folders or s3:// prefixes, searched recursively for images, tars and Parquet; or
            single images, tars (.tar) and tables (.parquet, also a folder; .csv, .jsonl). gs:// and az://
            work, too, and https:// for single images.
        output: Folder or s3:// prefix for the result: labels/, manifest/, run.json, summary.json.
        model: Bundle folder of the model, or s3:// prefix of one.
        precision: What the networks compute in. auto: float32 on CPUs, which label until a GPU of this
            machine has started, too; on GPUs float16 or bfloat16 where the ages stay within 0.05 years of
            float32's on average, as each worker measures at its start.
            bfloat16 is faster on the CPUs that have it, too, for large networks.
        mirror: Label by the mean over each face and its mirror image, in twice the model's time; the
            card says what it gains.
        age_distribution: Write the whole distribution of each age, too: 101 numbers a face.
        threshold: Age in years; the column p_under_AGE is the probability to be younger.
        limit: Label only the first N images.
        column: The column of tables that holds the images, or their names; found by itself if there
            is only one of bytes, or one called uri, url, path, file or image.
        carry: Columns of tables that go into the labels with each image; split: also that of folders and
            shards named train, val, test and the like.
        all_files: Label system files, too, such as ._x.jpg and what lies in @eaDir/ or __MACOSX/.
        retry: Label again what has one of these statuses, such as download_error.
        update: List the archive again, and label what is new or has changed since.
        prune: With --update: drop the labels of images that are not there any more.
        max_image_pixels: An image of more pixels is not decoded, and gets the status too_large.
        max_image_bytes: The same for the bytes of the file.
        fetch_timeout: Seconds for one attempt to read an image over a network.
        max_error_rate: Share of images with an error status above which the job fails.
        layout: fused: one pool does all where it can; separate: detection and each model have one.
        faces: Workers that fetch, decode, detect and crop; with one pool, all workers.
        models: Workers of the models; with --layout separate, of each model.
        max_cluster: What the cluster's autoscaler may start, where it has one.
        log_json: Log a JSON object a line, with the id of the run, for machines.
    """

    images: tuple[str, ...]
    output: str
    model: str = "models/default"
    detector: Annotated[DetectorName, tyro.conf.arg(help=DETECTOR_HELP)] = DEFAULT_DETECTOR
    precision: PrecisionChoice = "auto"
    mirror: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    age_distribution: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    threshold: int = ADULT_AGE
    limit: int | None = None
    column: str | None = None
    carry: tuple[str, ...] = ()
    all_files: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    retry: tuple[str, ...] = ()
    update: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    prune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    max_image_pixels: int = Limits.max_pixels
    max_image_bytes: int = Limits.max_bytes
    fetch_timeout: float = TIMEOUT_SECONDS
    max_error_rate: float = 1.0
    layout: Layout = "auto"
    faces: Size = field(default_factory=Size)
    models: Size = field(default_factory=Size)
    max_cluster: Growth = field(default_factory=Growth)
    log_json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    storage: StorageOption = field(default_factory=StorageOptions)

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: names the option and the value.
        """
        if not self.images or not all(self.images):
            raise UserError("--images needs at least one folder or file")
        if not self.output:
            raise UserError("--output needs a folder")
        for name in ("limit", "max_image_pixels", "max_image_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if not 0 <= self.max_error_rate <= 1:
            raise UserError(f"--max-error-rate must be in 0..1, not {self.max_error_rate}")
        if self.fetch_timeout <= 0:
            raise UserError(f"--fetch-timeout must be greater than 0, not {self.fetch_timeout}")
        if unknown := sorted(set(self.retried) - set(STATUSES)):
            raise UserError(f"--retry cannot be {unknown[0]!r}; choose from {', '.join(STATUSES)}")
        if self.prune and not self.update:
            raise UserError("--prune needs --update: only a new listing shows what has vanished")
        check_threshold(self.threshold)
        names = {column.name for column in label_columns(True, self.threshold)}
        if taken := sorted(set(self.carry) & {*names, *SCHEMA.names}):
            raise UserError(f"--carry {taken[0]}: labels have a column of that name already")
        self.storage.http.check()
        self.placement.check()
        _ = self.detector_spec

    @property
    def placement(self) -> Placement:
        """What is wanted of the pools."""
        return Placement(self.layout, self.faces, self.models, self.max_cluster)

    @property
    def detector_spec(self) -> DetectorSpec:
        """The detector that was chosen."""
        return DetectorSpec(self.detector)

    @property
    def retried(self) -> tuple[str, ...]:
        """The statuses of --retry, however they were separated."""
        return tuple(status for group in self.retry for status in group.split(",") if status)

    @property
    def limits(self) -> Limits:
        """What is not decoded."""
        return Limits(self.max_image_pixels, self.max_image_bytes)

    def fingerprint(self, bundle: Bundle) -> dict[str, object]:
        """All that changes a label, or which images there are."""
        return {
            "images": [i if "://" in i else local_uri(os.path.abspath(i)) for i in self.images],  # noqa: PTH100
            "limit": self.limit,
            "column": self.column,
            "carry": list(self.carry) or None,
            "model": model_id(bundle),
            "detector": self.detector_spec.digest(),
            "max_image_pixels": self.max_image_pixels,
            "max_image_bytes": self.max_image_bytes,
            "age_distribution": self.age_distribution,
            "threshold": self.threshold,
            # Outputs of the default go on, also those from before there was a choice.
            "precision": None if self.precision == "auto" else self.precision,
            "mirror": self.mirror or None,
            "all_files": self.all_files or None,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, list, label, verify, sum up; the status says whether the result can be trusted."""
    options = command_line.parse(Options, arguments)
    options.check()
    return label(options)


def label(options: Options) -> int:
    """List, label and check; gives the exit status."""
    storage = options.storage.resolved_for(*options.images, options.output, options.model)
    bundle = read_bundle(folder(options.model, storage))
    bundle.check_precision(options.precision)
    output = folder(options.output, storage)
    reading = reading_of(options, storage, output)
    run = run_id(output, options.fingerprint(bundle))
    if options.log_json:
        logs.as_json(run)
    archive = Archive(options.images, options.limit, reading)
    archive.carried()  # it checks
    with failures_in_one_line(HOW_TO_GO_ON), RunLock(output):
        card = bundle.card.to_dict()
        claim(output, RunRecord("jobs.score", options.fingerprint(bundle), reading.storage, card))
        recover(output)
        manifest = list_images(archive, output, options)
        forget_rows(output, options.retried)
        summary = label_images(options, bundle, manifest, output, reading, run)
        return check_result(options, summary, manifest, output)


def reading_of(options: Options, storage: StorageOptions, output: Folder) -> Reading:
    """How to read the archive; the output may lie in it."""
    return Reading(
        options.column,
        carry=options.carry,
        storage=storage,
        all_files=options.all_files,
        exclude=run_outputs.places(output),
    )


def list_images(archive: Archive, output: Folder, options: Options) -> Manifest:
    """List the archive once; a run that goes on has its list already, unless it is to be updated."""
    listed = output / "manifest"
    try:
        manifest = read_manifest(listed)
    except FileNotFoundError:
        manifest = write_manifest(archive, listed)
    else:
        if options.update:
            manifest = update_images(archive, output, manifest, options.prune)
    log.info("%s images to label", f"{manifest.images:,}")
    return manifest


def update_images(archive: Archive, output: Folder, manifest: Manifest, prune: bool) -> Manifest:
    """List the archive again; what has changed loses its row, and so gets a new one."""
    found = update(archive, output / "manifest", manifest, prune)
    log.info(
        "%s new, %s changed, %s vanished%s",
        f"{found.new:,}", f"{len(found.changed):,}", f"{len(found.vanished):,}",
        "" if not len(found.vanished) else ", dropped" if prune else ", kept",
    )  # fmt: skip
    if not found.is_empty:
        forget(output / "labels", found.to_forget)
    return found.finish(manifest)


def forget_rows(output: Folder, statuses: Sequence[str]) -> None:
    """Forget the rows with these statuses, so that they are made again."""
    if statuses:
        labels = output / "labels"
        count = forget(labels, ids_with_status(labels, statuses))
        log.info("%s images are tried again", f"{count:,}")


def label_images(
    options: Options,
    bundle: Bundle,
    manifest: Manifest,
    output: Folder,
    reading: Reading,
    run: str,
) -> Summary:
    """Label all images that have no row yet."""
    labels, remaining = output / "labels", output / "remaining"
    labels.make()
    done = committed(labels, manifest.next_id)
    counts = LabelCounts(labels)
    started = time.monotonic()
    work_seconds: dict[str, float] = {}
    group_rows = block_rows(manifest.images - int(done.sum()))
    left = write_remaining(manifest, output / "manifest", done, remaining, group_rows)
    if left:
        with Progress(manifest.images, counts.update, tell=RunMetrics(run, manifest.images)):
            work_seconds = run_pipeline(options, bundle, remaining, left, output, reading, run)
    else:
        log.info("all images have their row already; nothing to do")
    remaining.delete_all()
    recover(output)
    compact(output)
    summary = Summary(
        images=manifest.images,
        skipped=manifest.skipped,
        statuses=LabelCounts(labels).update(),
        faces=count_faces(labels),
        model=model_id(bundle),
        seconds=time.monotonic() - started,
        images_this_time=left,
        work_seconds=work_seconds,
    )
    return summary if left else summary.with_work_of_before(output)


def run_pipeline(
    options: Options,
    bundle: Bundle,
    remaining: Folder,
    count: int,
    output: Folder,
    reading: Reading,
    run: str,
) -> dict[str, float]:
    """Manifest → fetch → faces → models → label rows, streaming; gives the seconds of work."""
    labelling = Labelling(
        source=Fetch(
            options.max_image_bytes, reading.column, reading.storage, options.fetch_timeout
        ),
        detector=options.detector_spec,
        limits=options.limits,
        bundle=bundle,
        age_distribution=options.age_distribution,
        carry=options.carry,
        precision=options.precision,
        threshold=options.threshold,
        mirror=options.mirror,
    )
    writer = RowWriter(output / "labels", start=uuid.uuid4().hex)
    files = tuple(f"{remaining.path}/{name}" for name in remaining.files())
    rows = Rows(files, remaining.filesystem, count)
    if on_this_machine.suits(options.placement):
        seconds: Counter[str] = Counter()
        for _ in on_this_machine.label_here(rows, labelling, seconds.update, writer):
            pass
        return dict(seconds)
    # Ray takes seconds to import: an option that cannot work is refused long before.
    from lib.scoring import pipeline

    return pipeline.write(rows, labelling, options.placement, HOW_TO_GO_ON, run, writer)


def check_result(options: Options, summary: Summary, manifest: Manifest, output: Folder) -> int:
    """Check the result, sum up, and give the exit status."""
    labels = output / "labels"
    missing, repeated = rows_missing_and_repeated(labels, manifest.ids(output / "manifest"))
    summary.write(output)
    sys.stdout.write(f"\n{summary}\n\n{first_rows(labels)}\n\n")
    if missing or repeated:
        log.error("error: %d images have no row, %d rows are too many", missing, repeated)
        return FAILED
    if summary.error_rate > options.max_error_rate:
        log.error(
            "error: %.1f%% of the images could not be labelled, more than --max-error-rate %g; "
            "the column error of %s says why",
            100 * summary.error_rate, options.max_error_rate, labels,
        )  # fmt: skip
        return FAILED
    sys.stdout.write(f"labels: {labels}\n")
    return 0


if __name__ == "__main__":
    command_line.run(main, HOW_TO_GO_ON)
