"""Images in object storage against local files, and a million of them.

    python -m benchmarks.storage --chips utkface-*.tar --rows 1000000

A real S3 server (rclone) on loopback, on the same cores: its work is part of what is measured. First the
same chips as local files, as objects, as tar shards and as Parquet, labelled by the job; the labels must
be the same, and the speed is that from the first committed rows to the last. Then a manifest of many rows
over the same shards, where a stage that only hashes the bytes stands in for the models: rows right,
memory, speed, and the same after a kill half-way.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from benchmarks.scoring import LOOK_EVERY_SECONDS, memory, run_job
from lib.archive.archive import Archive, Position, Reading
from lib.archive.entry import SUFFIXES, Entry
from lib.archive.manifest import read_manifest, write_manifest
from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import read_bundle
from lib.output.commits import committed, recover, write_remaining
from lib.output.counts import LabelCounts, rows_missing_and_repeated
from lib.scoring.labelling import BATCH_BYTES
from lib.scoring.placement import FACES, Pool
from lib.scoring.row_writer import RowWriter
from lib.scoring.rows import Rows, block_rows
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import BATCH, Chain, Stage, Stopwatch
from lib.storage.folder import folder
from lib.storage.options import S3Options, StorageOptions
from tests.s3_server import ENVIRONMENT, S3Server, s3_server

SAME_AGE = 0.01
"""Years by which ages may differ: a batch of other images adds up in another order."""


@dataclass(frozen=True)
class Options:
    """Compare sources, and count to a million.

    Attributes:
        chips: Tar files of face crops.
        limit: Only so many of them.
        model: Bundle folder of the model.
        rows: Numbers of rows of the manifests over the shards; none: only the comparison.
        compare: Whether to compare the sources.
        cost: Images for which CPU seconds are counted; 0: none.
    """

    chips: tuple[Path, ...]
    limit: int | None = None
    model: Path = Path("models/default")
    rows: tuple[int, ...] = ()
    compare: bool = True
    cost: int = 2000


def main() -> None:
    """Run both parts."""
    if sys.argv[1:2] == ["--hash"]:
        hash_all(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    options = tyro.cli(Options)
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory(prefix="storage-") as name, s3_server() as server:
        work = Path(name)
        lay_out(options, server, work / "local")
        if options.cost:
            cost(options.cost, options.model, server, work)
        if options.compare:
            compare(options, server, work)
        for rows in options.rows:
            print(count(rows, server, work / f"rows-{rows}", killed=False))
        if options.rows:
            print(count(options.rows[-1], server, work / "killed", killed=True))


def lay_out(options: Options, server: S3Server, local: Path) -> None:
    """The chips as local files, objects, tars and Parquet in the layout of Hugging Face."""
    local.mkdir()
    rows = []
    for number, tar in enumerate(options.chips):
        with tarfile.open(tar) as archive:
            archive.extractall(local, filter="data")
        shutil.copy(tar, server.bucket("tars") / f"{number:02}.tar")
    for path in sorted(p for p in local.iterdir() if p.suffix in SUFFIXES):
        shutil.copy(path, server.bucket("objects") / path.name)
        rows.append({"bytes": path.read_bytes(), "path": path.name})
    parts = server.bucket("parquet")
    for number, start in enumerate(range(0, len(rows), 2500)):
        table = pa.table({"image": rows[start : start + 2500]})
        pq.write_table(table, parts / f"train-{number:05}.parquet", row_group_size=100)


def cost(images: int, model: Path, server: S3Server, work: Path) -> None:
    """CPU milliseconds for each image, without Ray: what is left of the speed where CPUs are short.

    Seconds on the clock change with what else a machine does; these hardly do.
    """
    bundle = read_bundle(model.resolve())
    s3 = StorageOptions(S3Options(server.endpoint, "us-east-1"))
    stages: list[Stage] = [
        *(Fetch(10**7, storage=s3), Detect(DetectorSpec("none"), bundle.crop, Limits(), 1)),
        *(Predict(bundle, ("age", "gender"), 1), Label(bundle)),
    ]
    chain = Chain(stages)
    assert server.process is not None
    rclone = psutil.Process(server.process.pid)
    local = 0.0
    for source in (str(work / "local"), "s3://objects", "s3://tars", "s3://parquet"):
        entries = [e._asdict() for e in Archive([source], images, Reading(storage=s3))]
        rows = pa.Table.from_pylist([{"id": n, **e} for n, e in enumerate(entries)])
        rows = rows.drop_columns(["extra"])
        chain(rows.slice(0, BATCH))  # the first batch traces the graphs and makes the client
        started, served = time.process_time(), sum(rclone.cpu_times()[:2])
        done = sum(map(len, chain.stream(rows, BATCH, BATCH_BYTES)))
        assert done == images
        spent = (time.process_time() - started) / images * 1000
        served = (sum(rclone.cpu_times()[:2]) - served) / images * 1000
        local = local or spent
        print(
            f"  {source:<14}{spent:6.2f} ms of CPU an image, the server's {served:5.2f} ms; speed to be "
            f"had: {local / spent:.2f} of local, {local / (spent + served):.2f} with the server on the "
            "same cores",
            flush=True,
        )


def compare(options: Options, server: S3Server, work: Path) -> None:
    """The same labels from everywhere, and how fast."""
    sources = {
        "local": str(work / "local"), "objects": "s3://objects", "tars": "s3://tars",
        "parquet": "s3://parquet",
    }  # fmt: skip
    ages: dict[str, pd.Series] = {}
    speeds: dict[str, float] = {}
    # Local files before and after the others, because machines drift.
    for name, source in [*sources.items(), ("local again", sources["local"])]:
        more = ("--s3.endpoint", server.endpoint, "--s3.region", "us-east-1")
        run = run_job(
            source,
            ("--detector", "none", "--model", str(options.model.resolve()), *more),
            work,
            options.limit,
        )
        labels = pd.read_parquet(work / "output" / "labels")
        assert (labels["status"] == "ok").all()
        names = labels["uri"].str.replace("#", "/").str.rsplit("/").str[-1]
        ages[name] = labels.set_index(names)["age"].sort_index()
        speeds[name] = run.images_per_second
        print(f"  {name:<12}{run.rows:>8,} rows {run.images_per_second:8.1f} images/s", flush=True)
    local = (speeds["local"] + speeds["local again"]) / 2
    for name in ("objects", "tars", "parquet"):
        common = ages["local"].index.intersection(ages[name].index)
        difference = (ages["local"][common] - ages[name][common]).abs().max()
        assert options.limit or len(common) == len(ages["local"]) == len(ages[name])
        assert difference < SAME_AGE, f"{name}: ages differ by {difference} years"
        print(
            f"  {name}: {speeds[name] / local:.2f} of local; {len(common):,} common names, ages differ "
            f"by at most {difference:.4f}"
        )


class Repeated(Archive):
    """The images of an archive again and again, up to a number."""

    images = 0

    def _behind(self, position: Position) -> Iterator[Entry]:
        entries = list(super()._behind(Position()))
        for number, entry in enumerate(islice(cycle(entries), self.images)):
            self.position = Position(number)
            yield entry


@dataclass
class Hash:
    """Stands in for the models: bytes → SHA-256."""

    needs = ("id", "data", "status")
    drops = ("uri", "data", "error", "note")
    gives = ("id", "status", "sha256")

    def setup(self, watch: Stopwatch) -> None:
        """Nothing to load."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Hash all images of the batch."""
        hashes = [hashlib.sha256(data or b"").hexdigest() for data in batch["data"].to_pylist()]
        status = pa.array([s or "ok" for s in batch["status"].to_pylist()])
        return pa.table({"id": batch["id"], "status": status, "sha256": hashes})


@dataclass
class Hashing:
    """Stands in for `lib.scoring.labelling.Labelling`."""

    options: StorageOptions

    def batch(self, pool: Pool) -> int:
        """Images that pass the stages together."""
        return BATCH

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        """Fetch and hash."""
        return [Fetch(10**7, storage=self.options), Hash()]


def hash_all(endpoint: str, work: Path, rows: int) -> None:
    """The job, but for the models: list, resume, fetch, hash, commit."""
    from lib.scoring import engine, pipeline

    options = StorageOptions(S3Options(endpoint, "us-east-1"))
    output = folder(work)
    recover(output)
    try:
        manifest = read_manifest(output / "manifest")
    except FileNotFoundError:
        archive = Repeated(["s3://tars"], reading=Reading(storage=options))
        archive.images = rows
        manifest = write_manifest(archive, output / "manifest")
    done = committed(output / "labels", manifest.next_id)
    remaining = output / "remaining"
    group_rows = block_rows(manifest.images - int(done.sum()))
    left = write_remaining(manifest, output / "manifest", done, remaining, group_rows)
    rows_left = Rows(tuple(f"{remaining.path}/{name}" for name in remaining.files()), None, left)
    pools = [Pool(FACES, (FACES,), 2, 0.8, least=2)]
    writer = RowWriter(output / "labels", uuid.uuid4().hex)
    with engine.cluster():
        hashes = pipeline.label(
            pipeline.places_of(rows_left.blocks()),
            Hashing(options),  # type: ignore[arg-type]
            pools,
            source=rows_left,
            writer=writer,
        )
        for _ in hashes.iter_batches(batch_size=None):
            pass
    recover(output)


def count(rows: int, server: S3Server, work: Path, killed: bool) -> str:
    """Run `hash_all` in a process of its own, kill it half-way if asked to, and check every row."""
    command = [
        *(sys.executable, "-m", "benchmarks.storage"),
        *("--hash", server.endpoint, str(work), str(rows)),
    ]
    started = time.time()
    peak = peak_driver = 0
    counts = LabelCounts(work / "labels")
    seen = [(started, 0)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        time.sleep(10 * LOOK_EVERY_SECONDS)
        try:
            peak_driver = max(peak_driver, psutil.Process(process.pid).memory_info().rss)
            peak = max(peak, memory(psutil.Process(process.pid)))
        except psutil.Error:
            continue
        if (now := counts.update().total()) > seen[-1][1]:
            seen.append((time.time(), now))
        if killed and now >= rows / 2:
            process.kill()
            process.wait()
            time.sleep(5)
            killed = False
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if process.returncode:
        assert process.stderr is not None
        sys.exit(process.stderr.read().decode())
    output = folder(work)
    missing, repeated = rows_missing_and_repeated(output / "labels", rows)
    speed = (seen[-1][1] - seen[1][1]) / max(1e-9, seen[-1][0] - seen[1][0])
    statuses = dict(LabelCounts(output / "labels").update())
    distinct = set()
    for name in (output / "labels").files():
        distinct |= set((output / "labels").read_table(name, ["sha256"])["sha256"].to_pylist())
    return (
        f"{work.name}: {rows:,} rows, {missing} missing, {repeated} too many, {statuses}, "
        f"{len(distinct):,} different hashes; {speed:,.0f} rows/s; peak of the driver "
        f"{peak_driver / 2**20:,.0f} MiB, of all processes {peak / 2**20:,.0f} MiB"
    )


if __name__ == "__main__":
    main()
