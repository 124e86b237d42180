"""Clean a data set of faces and write it for training: `python -m jobs.prepare --help`.

The metadata is small and is read here; the images are large and are read once. Each task ingests a
shard of a tar or folder: it checks and shrinks the images that the metadata names, and writes them into
an intermediate shard. Duplicates are known only when all images have been read, so a last step copies
the images without duplicates into faces/. Reading the source twice instead would save the disk space of
the intermediate shards, at the cost of a second download.
"""

import hashlib
import logging
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tyro
from numpy.typing import NDArray

from lib.common import options as command_line
from lib.common.errors import UserError
from lib.common.processes import in_processes
from lib.common.progress import Progress
from lib.datasets import prepare_summary
from lib.datasets.cleaning import apply_metadata_rules, apply_rules
from lib.datasets.dataset import Dataset
from lib.datasets.image_sources import (
    ImageShard,
    Source,
    common_prefix,
    metadata_prefix,
    open_sources,
)
from lib.datasets.ingest import Ingest, IngestReport, read_report
from lib.datasets.labels import BOX, SHARES, split_of
from lib.datasets.path_index import PathIndex
from lib.datasets.prepare_summary import ImageCounts, PrepareSummary
from lib.datasets.prepared import (
    IntermediateShards,
    rows_not_once,
    write_dropped,
    write_faces,
    write_kept,
)
from lib.datasets.registry import SOURCE_HELP, DatasetOptions
from lib.datasets.rules import Thresholds, first_rule
from lib.output.run_record import RunRecord, claim
from lib.scoring import on_this_machine
from lib.scoring.placement import Placement
from lib.storage.options import StorageOption, StorageOptions

log = logging.getLogger("prepare")

FAILED = 1
HOW_TO_GO_ON = "the same command goes on where it was"

FACES, KEPT, DROPPED = "faces", "kept", "dropped"
INGESTED, UNFINISHED = "ingested", "unfinished"
OWNED = (FACES, KEPT, DROPPED, INGESTED, UNFINISHED)


@dataclass(frozen=True)
class Options:
    """Clean a data set of faces and write it for training.

    Every row of the metadata ends in faces/ or, with the rule that dropped it, in dropped/. Stopped
    or killed at any moment, the same command goes on where it was.

    Attributes:
        output: Folder for the result: faces/, dropped/, run.json, summary.json.
        images: Folders, searched recursively, uncompressed tars, or image files.
        metadata_only: Read no image; the rows that stay are written to kept/ instead of faces/.
        size: Images are shrunk so that the shorter side has at most that many pixels.
        shares: Of the splits train, val and test; they add up to 1.
    """

    source: Annotated[str, tyro.conf.arg(help=SOURCE_HELP)]
    output: Path
    datasets: Annotated[DatasetOptions, tyro.conf.arg(name="")] = field(
        default_factory=DatasetOptions
    )
    images: tuple[str, ...] = ()
    metadata_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    size: int = 256
    shares: tuple[float, float, float] = SHARES
    thresholds: Annotated[Thresholds, tyro.conf.arg(name="")] = field(default_factory=Thresholds)
    storage: StorageOption = field(default_factory=StorageOptions)

    @property
    def dataset(self) -> Dataset:
        """The data set of --source.

        Raises:
            UserError: there is no such data set, or the options are those of another one.
        """
        return self.datasets.chosen(self.source)

    def check(self) -> None:
        """Check all options.

        Raises:
            UserError: names the option.
        """
        labels_are_names = self.dataset.file_option is None
        if not self.images and (labels_are_names or not self.metadata_only):
            raise UserError("--images needs at least one tar, folder or file")
        if self.size < 1:
            raise UserError(f"--size must be at least 1, not {self.size}")
        split_of("", self.shares)  # it checks them

    def fingerprint(self, rows: pa.Table) -> dict[str, object]:
        """All that changes a face, or which rows there are."""
        return {
            "source": self.source,
            "rows": digest(rows),
            "images": [i if "://" in i else str(Path(i).absolute()) for i in self.images],
            "metadata_only": self.metadata_only,
            "size": self.size,
            "shares": list(self.shares),
            "thresholds": asdict(self.thresholds),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the metadata and the images, apply the rules to every row, write, check, sum up."""
    started = time.monotonic()
    options = command_line.parse(Options, arguments)
    options.check()
    output = options.output.resolve()
    storage = options.storage.resolved_for(*options.images)
    sources = open_sources(options.images, storage)
    rows = options.dataset.read_rows(
        lambda: (name for source in sources for name in source.names())
    )
    dropped_by = apply_rules_to_metadata(options, rows)
    ingest = None if options.metadata_only else plan_ingest(options, sources, rows, dropped_by)
    claim(output, RunRecord("jobs.prepare", options.fingerprint(rows), storage), OWNED)
    if (output / prepare_summary.FILE).exists():
        remove_work(output)
        log.info("%s is prepared already; nothing to do", output)
        return check_kept(prepare_summary.kept_in(output), output)
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)
    try:
        if ingest is None:
            cleaned, images = write_rows(output / UNFINISHED, rows, dropped_by)
        else:
            files = ingest_images(sources, ingest)
            cleaned, images = write_all(
                output / UNFINISHED, rows, dropped_by, files, options.shares
            )
    except OSError as error:
        raise UserError(f"cannot write to --output {str(options.output)!r}: {error}") from error
    return publish(output, PrepareSummary.of(cleaned, images, time.monotonic() - started))


def apply_rules_to_metadata(options: Options, rows: pa.Table) -> pa.StringArray:
    """Name the rule that drops each row; null: none of those that need no image does.

    Raises:
        UserError: all rows are dropped.
    """
    has_gender = options.dataset.has_gender
    dropped_by = first_rule(rows if has_gender else rows.drop_columns("gender"), options.thresholds)
    if dropped_by.null_count == 0:
        counts = Counter(dropped_by.to_pylist()).most_common()
        rules = ", ".join(f"{count:,} {rule}" for rule, count in counts) or "it is empty"
        raise UserError(f"no row of the metadata can be kept: {rules}")
    return dropped_by


def plan_ingest(
    options: Options, sources: Sequence[Source], rows: pa.Table, dropped_by: pa.StringArray
) -> Ingest:
    """Settings of the tasks: the images that are needed, and their names in the metadata.

    Raises:
        UserError: the metadata names no image at all.
    """
    index = PathIndex(rows["path"])
    prefixes = common_prefixes(sources, index)
    if all(prefix is None for prefix in prefixes.values()):
        index = PathIndex(without_prefix(sources, rows["path"]))
        prefixes = common_prefixes(sources, index)
    if all(prefix is None for prefix in prefixes.values()):
        name = next((name for source in sources for name in source.names()), None)
        path = next((path.as_py() for path in rows["path"] if path.is_valid), None)
        raise UserError(
            "the metadata names none of the images: the first image is called "
            f"{name!r}, the first in the metadata {path!r}"
        )
    if options.dataset.paths_are_unique:
        check_unique(sources, index, prefixes)
    return Ingest(
        folder=options.output.resolve() / INGESTED,
        index=index,
        wanted=dropped_by.is_null().to_numpy(zero_copy_only=False),
        prefixes={source: prefix or "" for source, prefix in prefixes.items()},
        thresholds=options.thresholds,
        size=options.size,
        boxes=boxes_of(rows),
    )


def boxes_of(rows: pa.Table) -> NDArray[np.float64] | None:
    """The box of each row, (n, 4), NaN where it has none; None where the images are faces."""
    if not set(BOX.names) <= set(rows.column_names):
        return None
    return np.column_stack([rows[name].to_numpy() for name in BOX.names])


def common_prefixes(sources: Sequence[Source], index: PathIndex) -> dict[str, str | None]:
    """The leading folders of each source that the metadata leaves out; None: it names no image of it."""
    return {str(source): common_prefix(source.names(), index) for source in sources}


def without_prefix(sources: Sequence[Source], paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """The paths without the leading folders that the sources leave out."""
    names = (name for source in sources for name in source.names())
    prefix = metadata_prefix(names, paths)
    if prefix is None:
        return paths
    shorter = pc.utf8_slice_codeunits(paths, len(prefix))
    return pc.if_else(pc.starts_with(paths, prefix), shorter, paths)


def check_unique(
    sources: Sequence[Source], index: PathIndex, prefixes: Mapping[str, str | None]
) -> None:
    """Refuse a path that fits two images: which of them is meant, nobody can tell.

    Raises:
        UserError: names the path and both images.
    """
    places: dict[str, str] = {}
    for source in sources:
        prefix = prefixes[str(source)] or ""
        for name in source.names():
            path = name.removeprefix(prefix)
            if not name.startswith(prefix) or path not in index:
                continue
            place = f"{name!r} in {str(source)!r}"
            if (other := places.setdefault(path, place)) != place:
                raise UserError(
                    f"the path {path!r} of the metadata fits {other} and {place}; give the images one "
                    "by one, or paths that tell them apart"
                )


def ingest_images(sources: Sequence[Source], ingest: Ingest) -> list[Path]:
    """Write all intermediate shards that do not exist yet; gives the files of all."""
    ingest.folder.mkdir(exist_ok=True)
    shards = {ingest.file(shard): shard for source in sources for shard in source.shards()}
    finished = [file for file in shards if file.exists()]
    counts = sum((read_report(file).images for file in finished), Counter[str]())
    with Progress(int(ingest.wanted.sum()), counts.copy):
        left = [shard for file, shard in shards.items() if file not in finished]
        for report in ingest_shards(ingest, left):
            counts.update(report.images)
    return list(shards)


def ingest_shards(ingest: Ingest, shards: Sequence[ImageShard]) -> Iterator[IngestReport]:
    """Ingest shards, as many at a time as there are CPUs, here or on the cluster that is named.

    Raises:
        UserError: an image cannot be read, or an intermediate shard cannot be written.
    """
    if not shards:
        return
    problem = "the images cannot be read or stored"
    if on_this_machine.suits(Placement()):
        yield from in_processes(ingest, shards, problem)
        return
    # Ray takes seconds to import, so wrong options are refused before.
    from lib.scoring import engine

    with engine.failures_in_one_line(HOW_TO_GO_ON), engine.cluster():
        yield from engine.tasks(ingest, shards, problem)


def write_rows(
    folder: Path, rows: pa.Table, dropped_by: pa.StringArray
) -> tuple[pa.Table, ImageCounts]:
    """Write the rows that the metadata rules keep, and those that they drop."""
    cleaned = apply_metadata_rules(rows, dropped_by)
    write_kept(folder / KEPT, cleaned)
    write_dropped(folder / DROPPED, cleaned)
    return cleaned, ImageCounts()


def write_all(
    folder: Path,
    rows: pa.Table,
    dropped_by: pa.StringArray,
    files: Sequence[Path],
    shares: Sequence[float],
) -> tuple[pa.Table, ImageCounts]:
    """Apply all rules, now that all images are known, and write every row."""
    shards = IntermediateShards(files)
    places = shards.places(rows.num_rows)
    cleaned = apply_rules(rows, dropped_by, shards.facts(places), shares)
    write_faces(folder / FACES, shards, places, cleaned)
    write_dropped(folder / DROPPED, cleaned)
    return cleaned, count_images(files, len(shards) - int((places >= 0).sum()))


def count_images(files: Sequence[Path], repeated: int) -> ImageCounts:
    """Count the images that belong to no kept row, and warn of damaged tars."""
    reports = [read_report(file) for file in files]
    damage = sorted({report.damage for report in reports if report.damage is not None})
    for line in damage:
        log.warning("warning: %s; the images behind that count as missing", line)
    return ImageCounts(sum(report.unnamed for report in reports), repeated, damage)


def publish(output: Path, summary: PrepareSummary) -> int:
    """Check that every row is there once; only then move the result to its place."""
    written = list((output / UNFINISHED).iterdir())
    if wrong := rows_not_once(written, summary.rows):
        log.error("error: %d rows are not exactly once in %s", wrong, output / UNFINISHED)
        return FAILED
    for folder in written:
        target = output / folder.name
        shutil.rmtree(target, ignore_errors=True)  # of a run that was killed before its summary
        folder.rename(target)
    summary.write(output)
    remove_work(output)
    sys.stdout.write(f"{summary}\n")
    return check_kept(summary.kept, output)


def check_kept(kept: int, output: Path) -> int:
    """The exit status: a data set without a face is of no use."""
    if kept:
        return 0
    log.error("error: no face is kept; %s says why of each row", output / DROPPED)
    return FAILED


def remove_work(output: Path) -> None:
    """Remove the intermediate folders."""
    for name in (INGESTED, UNFINISHED):
        shutil.rmtree(output / name, ignore_errors=True)


def digest(rows: pa.Table) -> str:
    """SHA-256 of all values, in hexadecimal."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


if __name__ == "__main__":
    command_line.run(main, HOW_TO_GO_ON)
