"""The scoring job against the short script that one would write by hand on Ray Data.

    python -m benchmarks.by_hand --photos FOLDER

Both label the same photographs, repeated up to a number, with the same networks on the same cores, as
processes of their own, their start included. The script is the obvious one: the package `mtcnn` at its
defaults, whole photographs, a crop and a `predict` for each face, one actor for each core. It keeps no
account of what is done, cannot go on after a kill, and the first damaged file ends it.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow.parquet as pq
import tyro
from numpy.typing import NDArray
from PIL import Image

from lib.models.bundle import read_bundle

CORES = len(os.sched_getaffinity(0))
MODEL = Path(__file__).resolve().parents[1] / "models" / "default"
CONFIDENT = 0.9


@dataclass(frozen=True)
class Options:
    """Compare the scoring job with a script written by hand.

    Attributes:
        photos: Folder of photographs.
        count: The photographs are repeated to this many.
    """

    photos: Path
    count: int = 200


class LabelByHand:
    """An actor: photographs in, rows out."""

    def __init__(self) -> None:
        import keras
        from mtcnn import MTCNN

        bundle = read_bundle(MODEL)
        self.side, self.pixels = bundle.crop.size, bundle.pixels
        self.detector = MTCNN()
        self.trunk, self.age, self.gender = (
            keras.models.load_model(MODEL / f"{name}.keras", compile=False)
            for name in ("trunk", "age", "gender")
        )

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
        """Label a batch."""
        rows = [self.label(data) for data in batch["bytes"]]
        return {"path": list(batch["path"]), **{n: [row[n] for row in rows] for n in rows[0]}}

    def label(self, data: bytes) -> dict[str, Any]:
        """The largest face of a photograph."""
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        found = [f for f in self.detector.detect_faces(pixels) if f["confidence"] > CONFIDENT]
        labels = [self.predict(pixels, *face["box"]) for face in found]
        if not labels:
            return {"faces": 0, "age": None, "gender": None}
        areas = [face["box"][2] * face["box"][3] for face in found]
        return {"faces": len(found), **labels[int(np.argmax(areas))]}

    def predict(
        self, pixels: NDArray[Any], x: int, y: int, width: int, height: int
    ) -> dict[str, Any]:
        """Age and gender of the face in a box."""
        crop = Image.fromarray(pixels[max(0, y) : y + height, max(0, x) : x + width])
        inputs = np.asarray(crop.resize((self.side, self.side)), np.float32) * self.pixels.scale
        inputs = (inputs - self.pixels.mean) / self.pixels.std
        features = self.trunk.predict(inputs[None], verbose=0)
        ages = self.age.predict(features, verbose=0)[0]
        genders = self.gender.predict(features, verbose=0)[0]
        return {
            "age": float(ages @ np.arange(101)),
            "gender": ("female", "male")[int(np.argmax(genders))],
        }


def by_hand(images: str, output: str) -> None:
    """The script."""
    import ray

    ray.init(include_dashboard=False)
    ray.data.read_binary_files(images, include_paths=True).map_batches(
        LabelByHand,
        batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=CORES),
        num_cpus=0.5,  # with a whole one for each, nothing would be left to read with: it would hang
    ).write_parquet(output)


def main() -> None:
    """Run both, and compare."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as folder:
        images, theirs, ours = (Path(folder, name) for name in ("images", "by-hand", "job"))
        repeat(options.photos, options.count, images)
        script = (
            f"from benchmarks.by_hand import by_hand; by_hand({str(images)!r}, {str(theirs)!r})"
        )
        by_job = measure(
            sys.executable, "-m", "jobs.score", "--images", str(images), "--output", str(ours)
        )
        by_script = measure(sys.executable, "-c", script)
        faces = pq.read_table(theirs, columns=["faces"])["faces"].to_numpy()
        labelled = pq.read_table(ours / "labels", columns=["face_count"])["face_count"].to_numpy()
    for name, cost, counts in (("script", by_script, faces), ("job", by_job, labelled)):
        assert len(counts) == options.count
        print(
            f"{name}: {options.count} photographs, {counts.sum()} faces; {cost.seconds:.0f} s "
            f"({options.count / cost.seconds:.1f} images/s), {cost.cpu_seconds:.0f} CPU seconds"
        )
    print(
        f"starts included, the script takes {by_script.seconds / by_job.seconds:.1f} times as long and "
        f"{by_script.cpu_seconds / by_job.cpu_seconds:.1f} times the work of the CPUs"
    )


def repeat(photos: Path, count: int, folder: Path) -> None:
    """Copy the photographs, over and over, to that many files."""
    folder.mkdir()
    files = sorted(photos.glob("*.jpg"))
    for number in range(count):
        shutil.copy(files[number % len(files)], folder / f"{number:05}.jpg")


class Cost(NamedTuple):
    """What a command takes; `cpu_seconds` hardly depends on what else the machine does."""

    seconds: float
    cpu_seconds: float


def measure(*command: str) -> Cost:
    """Run a command, whose messages are shown if it fails."""
    started = time.monotonic()
    cpu: dict[psutil.Process, float] = {}
    with tempfile.TemporaryFile("w+") as log:
        with psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=log) as process:
            while process.poll() is None:
                for one in [process, *process.children(recursive=True)]:
                    with suppress(psutil.Error):  # gone meanwhile
                        cpu[one] = sum(one.cpu_times()[:2])
                time.sleep(0.5)
        log.seek(0)
        if process.returncode:
            sys.exit(f"error: {' '.join(command[:3])}: {log.read()[-2000:]}")
    return Cost(time.monotonic() - started, sum(cpu.values()))


if __name__ == "__main__":
    main()
