"""Clean a data set of faces and write it for training: `python -m jobs.prepare --help`.

The metadata is small and stays here; the images are large and are read once. Each task takes a piece
of a tar or folder, and writes the images that the metadata wants, checked and shrunk, into a part.
Only then is it known which images are there twice, so the parts are copied, without those, into the
faces. Reading all images twice instead, first to hash them, would save the disk space of the parts and
cost the reading of the archive again, which may lie far away; decoding is what takes the time.
"""

import hashlib
import logging
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import pyarrow as pa
import tyro

from lib.common import options as command_line
from lib.common.errors import UserError
from lib.common.progress import Progress
from lib.datasets import imdb_wiki, utkface
from lib.datasets import prepare_summary as tally
from lib.datasets.image_sources import Piece, Source, common_prefix, open_sources
from lib.datasets.ingest import Report, Staging, read_report
from lib.datasets.labels import SHARES, split_of
from lib.datasets.outcomes import judge, judge_metadata
from lib.datasets.path_index import PathIndex
from lib.datasets.prepare_summary import ImageTally, Tally
from lib.datasets.prepared import Parts, rows_not_once, write_dropped, write_faces, write_kept
from lib.datasets.rules import Thresholds, first_rule
from lib.datasets.table import Names, read_table
from lib.output import run_record
from lib.tasks.gender import Gender

log = logging.getLogger("prepare")

PROGRAM = "python -m jobs.prepare"
FAILED, INTERRUPTED = 1, 130
HOW_TO_GO_ON = "the same command goes on where it was"

FACES, KEPT, DROPPED = "faces", "kept", "dropped"
STAGED, UNFINISHED = "staged", "unfinished"
OWNED = (FACES, KEPT, DROPPED, STAGED, UNFINISHED)


@dataclass(frozen=True)
class Options:
    """Clean a data set of faces and write it for training.

    Every row of the metadata ends in faces/ or, with the rule that dropped it, in dropped/. Stopped
    or killed at any moment, the same command goes on where it was.

    Attributes:
        source: What the metadata is: imdb.mat or wiki.mat, the file names of UTKFace, or a table.
        output: Folder for the result: faces/, dropped/, run.json, summary.json.
        metadata: imdb.mat or wiki.mat, for imdb-wiki.
        table: CSV file with a header or Parquet file, for table.
        images: Folders, searched recursively, uncompressed tars, or image files.
        metadata_only: Look at no image; the rows that stay are written to kept/ instead of faces/.
        size: Images are shrunk so that the shorter side has at most that many pixels.
        shares: Of the splits train, val and test; they add up to 1.
        thresholds: What is still good enough.
        columns: What the columns of the table are called.
        gender_zero: What 0 stands for, if the genders of the table are the numbers 0 and 1.
    """

    source: Literal["imdb-wiki", "utkface", "table"]
    output: Path
    metadata: Path | None = None
    table: Path | None = None
    images: tuple[str, ...] = ()
    metadata_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    size: int = 256
    shares: tuple[float, float, float] = SHARES
    thresholds: Annotated[Thresholds, tyro.conf.arg(name="")] = field(default_factory=Thresholds)
    columns: Names = field(default_factory=Names)
    gender_zero: Gender | None = None

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UserError: names the option.
        """
        for name, source in (("metadata", "imdb-wiki"), ("table", "table")):
            given = getattr(self, name) is not None
            if given and self.source != source:
                raise UserError(f"--{name} is for --source {source}, not for {self.source}")
            if not given and self.source == source:
                raise UserError(f"--source {source} needs --{name}")
        if not self.images and (self.source == "utkface" or not self.metadata_only):
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
    """Read the metadata, look at the images, decide about every row, write, check, sum up."""
    started = time.monotonic()
    options = command_line.parse(Options, arguments, PROGRAM)
    options.check()
    output = options.output.resolve()
    sources = open_sources(options.images)
    rows = read_rows(options, sources)
    rule = first_rule(rows, options.thresholds)
    staging = None if options.metadata_only else plan_staging(options, sources, rows, rule)
    run_record.claim(output, options.fingerprint(rows), {}, OWNED)
    if (output / tally.FILE).exists():
        remove_work(output)
        log.info("%s is prepared already; nothing to do", output)
        return 0
    shutil.rmtree(output / UNFINISHED, ignore_errors=True)
    try:
        if staging is None:
            judged, images = write_rows(output / UNFINISHED, rows, rule)
        else:
            parts = stage_images(sources, staging)
            judged, images = write_all(output / UNFINISHED, rows, rule, parts, options.shares)
    except KeyboardInterrupt:
        log.info("stopped; %s", HOW_TO_GO_ON)
        return INTERRUPTED
    except OSError as error:
        raise UserError(f"cannot write to --output {str(options.output)!r}: {error}") from error
    return publish(output, Tally.of(judged, images, time.monotonic() - started))


def read_rows(options: Options, sources: Sequence[Source]) -> pa.Table:
    """The metadata, one row for each face."""
    if options.metadata is not None:
        with _open(options.metadata) as file:
            return imdb_wiki.read_metadata(file, str(options.metadata))
    if options.table is not None:
        with _open(options.table) as file:
            return read_table(file, str(options.table), options.columns, options.gender_zero)
    names = dict.fromkeys(name for source in sources for name in source.names())
    return utkface.read_names(list(names))


def plan_staging(
    options: Options, sources: Sequence[Source], rows: pa.Table, rule: pa.StringArray
) -> Staging:
    """What the tasks need to know: which images are wanted, and what they are called.

    Raises:
        UserError: the metadata names no image at all.
    """
    index = PathIndex(rows["path"])
    prefixes = {str(source): common_prefix(source.names(), index) for source in sources}
    if all(prefix is None for prefix in prefixes.values()):
        name = next((name for source in sources for name in source.names()), None)
        path = next((path.as_py() for path in rows["path"] if path.is_valid), None)
        raise UserError(
            "the metadata names none of the images: the first image is called "
            f"{name!r}, the first in the metadata {path!r}"
        )
    return Staging(
        folder=options.output.resolve() / STAGED,
        index=index,
        wanted=rule.is_null().to_numpy(zero_copy_only=False),
        prefixes={source: prefix or "" for source, prefix in prefixes.items()},
        thresholds=options.thresholds,
        size=options.size,
    )


def stage_images(sources: Sequence[Source], staging: Staging) -> list[Path]:
    """Read all images into parts; those parts that are there already are not made again."""
    staging.folder.mkdir(exist_ok=True)
    parts = {staging.part(piece): piece for source in sources for piece in source.pieces()}
    there = [part for part in parts if part.exists()]
    counts = sum((read_report(part).images for part in there), Counter[str]())
    with Progress(int(staging.wanted.sum()), counts.copy):
        for report in run_tasks(staging, [parts[part] for part in parts if part not in there]):
            counts.update(report.images)
    return list(parts)


def run_tasks(staging: Staging, pieces: Sequence[Piece]) -> Iterator[Report]:
    """Stage pieces in tasks of Ray Data, as many at a time as there are CPUs.

    Raises:
        UserError: the storage of the images or of the parts fails.
    """
    if not pieces:
        return
    # Ray takes seconds to import: an option that cannot work is refused long before.
    from lib.scoring import engine  # isort: skip
    import ray.data

    def stage(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"outcome": staging(row["item"])}
        except OSError as error:
            return {"outcome": error}

    with engine.failures_in_one_line(HOW_TO_GO_ON), engine.cluster():
        items = ray.data.from_items(list(pieces), override_num_blocks=len(pieces))
        for row in items.map(stage, num_cpus=1).iter_rows():
            if isinstance(row["outcome"], OSError):
                raise UserError(f"the images cannot be read or stored: {row['outcome']}")
            yield row["outcome"]


def write_rows(folder: Path, rows: pa.Table, rule: pa.StringArray) -> tuple[pa.Table, ImageTally]:
    """Write what the metadata alone decides."""
    judged = judge_metadata(rows, rule)
    write_kept(folder / KEPT, judged)
    write_dropped(folder / DROPPED, judged)
    return judged, ImageTally()


def write_all(
    folder: Path,
    rows: pa.Table,
    rule: pa.StringArray,
    files: Sequence[Path],
    shares: Sequence[float],
) -> tuple[pa.Table, ImageTally]:
    """Decide about every row, now that all images are known, and write it."""
    parts = Parts(files)
    places = parts.places(rows.num_rows)
    judged = judge(rows, rule, parts.found(places), shares)
    write_faces(folder / FACES, parts, places, judged)
    write_dropped(folder / DROPPED, judged)
    return judged, tally_images(files, len(parts) - int((places >= 0).sum()))


def tally_images(files: Sequence[Path], repeated: int) -> ImageTally:
    """Count what there was besides the rows, and warn of damaged tars."""
    reports = [read_report(file) for file in files]
    damage = sorted({report.damage for report in reports if report.damage is not None})
    for line in damage:
        log.warning("warning: %s; the images behind that count as missing", line)
    return ImageTally(sum(report.unnamed for report in reports), repeated, damage)


def publish(output: Path, result: Tally) -> int:
    """Check that every row is there once; only then the result takes its place."""
    written = list((output / UNFINISHED).iterdir())
    if wrong := rows_not_once(written, result.rows):
        log.error("error: %d rows are not exactly once in %s", wrong, output / UNFINISHED)
        return FAILED
    for folder in written:
        target = output / folder.name
        shutil.rmtree(target, ignore_errors=True)  # of a run that was killed before its summary
        folder.rename(target)
    result.write(output)
    remove_work(output)
    sys.stdout.write(f"{result}\n")
    return 0


def remove_work(output: Path) -> None:
    """Remove what is needed only until the result is there."""
    for name in (STAGED, UNFINISHED):
        shutil.rmtree(output / name, ignore_errors=True)


def digest(rows: pa.Table) -> str:
    """SHA-256 of all values, in hexadecimal."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None


if __name__ == "__main__":
    command_line.run(main)
