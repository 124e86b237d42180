"""What the faces of a training cost in disk, memory and time before the first step, for all of IMDB.

    python -m benchmarks.ingest [--faces 460723] [--folder DISK]

Makes Parquet files of faces: a few hundred distinct pictures at the size that VGG-Face is trained on, and
bytes of its own for each row. Then `jobs.train` starts three times: killed when half of the faces are
copied; started again, until its first step; and once more, with the copy in place. The network is a small
one, at VGG-Face's size of crops: two cores take a minute for a step of VGG-Face itself. Last the ingest
alone, in this process, decodes faces in the order of an epoch, as if nothing fitted the memory.

Exits with 1 where a bound is exceeded, or where a face is not what it was made as.
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import NamedTuple

import cv2
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from numpy.typing import NDArray
from PIL import Image

from lib.datasets.labelled_faces import FACE_SCHEMA, LabelledFaces
from lib.faces.crop import whole
from lib.images import Limits, decode
from lib.models.backbones.registry import BACKBONES
from lib.network_input import CropSpec
from lib.storage.folder import folder as as_folder
from lib.training.decoding import ahead
from lib.training.face_store import FaceStore
from lib.training.faces import open_faces, read_labels
from lib.training.schedule import epoch_order

DISK, GIB_OF_A_WORKER, SECONDS = 1.2, 4.0, 60.0
"""The bounds: times the data's bytes, memory of each worker, and the first step after the copy."""
PICTURE_SIDE = 256
ROWS_OF_A_FILE, VALIDATION = 20_000, 200
SIZE = BACKBONES["vgg-face"].size
SIDE = round(SIZE * 1.2)
BATCH = 96
PATIENCE = 1800.0


@dataclass(frozen=True)
class Options:
    """Measure the ingest.

    Attributes:
        faces: To train on.
        distinct: Pictures that they repeat.
        decoded: Faces that the ingest alone decodes.
        workers: That train together.
        folder: On the disk to measure; the data takes about 20 KB a face there, twice.
    """

    faces: int = 460_723
    distinct: int = 300
    decoded: int = 20_000
    workers: int = 1
    folder: Path = Path(tempfile.gettempdir())


class Start(NamedTuple):
    """A start of the job: seconds from the command and from the copy to the first step, and memory."""

    after_command: float
    after_copy: float
    worker_gib: float


def main() -> None:
    """Measure, print, and check the bounds."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory(prefix="ingest-", dir=options.folder) as temporary:
        folder = Path(temporary)
        pictures = [picture(number) for number in range(options.distinct)]
        data = make(folder / "faces", pictures, options.faces)
        print(f"{options.faces:,} faces, {data / 1e9:.2f} GB encoded", flush=True)
        left = kill_half_way(folder, options, data)
        print(f"killed when {left / data:.0%} were copied", flush=True)
        copying = start(folder, options)
        file = next(folder.glob("tmp/faces-*/train-*.faces"))
        used = sum(f.stat().st_blocks * 512 for f in file.parent.iterdir())
        print(
            f"started again: first step {copying.after_copy:.1f} s after the copy "
            f"({copying.after_command:.1f} s after the command); peak of a worker "
            f"{copying.worker_gib:.2f} GiB; disk {used / data:.3f} of the data", flush=True,
        )  # fmt: skip
        again = start(folder, options)
        print(f"with the copy in place: {again.after_command:.1f} s after the command", flush=True)
        right = unchanged(FaceStore(file))
        good, rate, cpu = ingest_alone(folder, pictures, options)
        print(
            f"ingest alone: {rate:,.0f} faces/s at {SIDE} pixels, {cpu:.2f} ms of a CPU for each; "
            f"{right:,} of {options.faces:,} copies and {good:,} of {options.decoded:,} decoded faces "
            "are what they were made as"
        )
    fine = (
        used <= DISK * data
        and max(copying.worker_gib, again.worker_gib) <= GIB_OF_A_WORKER
        and max(copying.after_copy, again.after_command) <= SECONDS
        and (right, good) == (options.faces, options.decoded)
    )
    print("within the bounds" if fine else "a bound is exceeded")
    sys.exit(0 if fine else 1)


def picture(number: int) -> bytes:
    """A made-up picture as a JPEG of about the bytes of a face: smooth, with some noise."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    pixels = cv2.resize(coarse, (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_CUBIC)
    noisy = (pixels + rng.normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noisy).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def numbered(jpeg: bytes, row: int) -> bytes:
    """The same picture, with the row's number as a comment behind its start marker."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + row.to_bytes(8, "big") + jpeg[2:]


def make(folder: Path, pictures: list[bytes], count: int) -> int:
    """Write the splits as jobs.prepare does; gives the bytes of the encoded faces to train on."""
    size = 0
    for split, faces in (("train", count), ("val", VALIDATION), ("test", VALIDATION)):
        target = folder / f"split={split}"
        target.mkdir(parents=True)
        for start in range(0, faces, ROWS_OF_A_FILE):
            rows = range(start, min(start + ROWS_OF_A_FILE, faces))
            images = [numbered(pictures[row % len(pictures)], row) for row in rows]
            size += sum(map(len, images)) if split == "train" else 0
            pq.write_table(table(split, rows, images), target / f"part-{start:07}.parquet")
    return size


def table(split: str, rows: range, images: list[bytes]) -> pa.Table:
    """Faces with made-up labels."""
    numbers = np.array(rows)
    ages = numbers % 90 + 5
    columns = {
        "image": images,
        **dict.fromkeys(("age", "age_low", "age_high"), ages.astype(np.int16)),
        "gender": np.array(["female", "male"])[numbers % 2],
        "identity": pa.nulls(len(rows), pa.string()),
        "group": pa.nulls(len(rows), pa.string()),
        "source": ["made"] * len(rows),
        "source_row": numbers,
        **dict.fromkeys(("width", "height"), np.full(len(rows), PICTURE_SIDE, np.int32)),
        "sha256": [f"{split}{row:059}" for row in rows],
    }
    return pa.table(columns, schema=FACE_SCHEMA)


@contextmanager
def job(folder: Path, options: Options) -> Iterator[tuple[psutil.Process, Path]]:
    """A start of the job and its log; at the end all of its processes are killed."""
    log, environment = folder / "log", {**os.environ, "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "jobs.train", "--data", str(folder / "faces")),
        *("--output", str(folder / "run"), "--backbone", "compact", "--size", str(SIZE)),
        *("--batch-size", "32", "--workers", str(options.workers), "--epochs", "1"),
    ]
    with log.open("wb") as output:
        # Ray's sockets must have short names.
        process = Popen(
            command, env={"RAY_TMPDIR": "/tmp", **environment}, stdout=output, stderr=STDOUT
        )
    running = psutil.Process(process.pid)
    try:
        yield running, log
    finally:
        for one in [running, *running.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # gone with another one
                one.kill()
        process.wait()


def kill_half_way(folder: Path, options: Options, data: int) -> int:
    """Kill the job in the middle of the copy; gives the bytes that it left."""
    with job(folder, options) as (running, log):
        give_up = time.monotonic() + PATIENCE
        while True:
            left = sum(f.stat().st_size for f in folder.glob("tmp/faces-*/train-*.unfinished"))
            if left >= data / 2:
                return left
            done = list(folder.glob("tmp/faces-*/train-*.faces"))
            if done or time.monotonic() > give_up or not running.is_running():
                sys.exit(f"error: the copy was not seen half done: {log.read_text()[-500:]}")
            time.sleep(0.005)


def start(folder: Path, options: Options) -> Start:
    """Start the job, and kill it after its first step."""
    started, peak = time.time(), 0
    with job(folder, options) as (running, log):
        while "first step:" not in log.read_text():
            if time.time() - started > PATIENCE or running.status() == psutil.STATUS_ZOMBIE:
                sys.exit(f"error: no first step: {log.read_text()[-500:]}")
            peak = max(peak, *(peak_of(worker) for worker in running.children(recursive=True)), 0)
            time.sleep(0.2)
        now = time.time()
        copied = max(f.stat().st_mtime for f in folder.glob("tmp/faces-*/*.faces"))
    return Start(now - started, now - max(copied, started), peak / 2**20)


def peak_of(process: psutil.Process) -> int:
    """The most memory that a training worker has had, in KiB; 0 for other processes."""
    try:
        if not " ".join(process.cmdline()).startswith("ray::RayTrainWorker"):
            return 0
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (psutil.Error, OSError, StopIteration):
        return 0


def unchanged(store: FaceStore) -> int:
    """How many copies have the number of their row in them."""
    return sum(store.read(row)[6:14] == row.to_bytes(8, "big") for row in range(len(store)))


def ingest_alone(folder: Path, pictures: list[bytes], options: Options) -> tuple[int, float, float]:
    """Faces that were decoded right, faces a second, and milliseconds of a CPU for each."""
    spec = CropSpec(SIDE, "box")
    expected: NDArray[np.int64] = np.array(
        [
            whole(decode(jpeg, Limits(), at_least=2 * SIDE).pixels, spec).sum(dtype=np.int64)
            for jpeg in pictures
        ]
    )
    split = LabelledFaces(as_folder(folder / "faces"), "train")
    (cache,) = folder.glob("tmp/faces-*")
    faces = open_faces(split, read_labels(split), SIDE, cache)
    order = epoch_order(options.faces, 0, 0)[: options.decoded]
    parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    good, started, cpu = 0, time.monotonic(), time.process_time()
    for part, images in zip(parts, ahead(faces.images, parts), strict=True):
        sums = images.sum(axis=(1, 2, 3), dtype=np.int64)
        good += int((sums == expected[part % len(pictures)]).sum())
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    return good, len(order) / seconds, 1000 * cpu / len(order)


if __name__ == "__main__":
    main()
