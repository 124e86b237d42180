"""The VGG-Face models here against the package `deepface`: speed, and whether both say the same.

    python -m benchmarks.vs_deepface --photos photos/

Both analyse the same photographs with the same weight files (of the published layout, with random
weights) and MTCNN, age and gender, in one process on the same cores: first whole photographs, with our
default detector and with the one that frames pictures as the package does, then the faces cut out of
them, with the detector left out, in float32 as the package does, and in bfloat16. The package runs in
an environment of its own, made at the first time (some gigabytes; it needs a package index). What is
measured of it, some ten minutes, stands between two runs of ours, which count with their mean, because
machines drift; first pictures, on which everything is loaded, do not count. The package gives ages as
whole numbers; their fractions are read off its model.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pyarrow as pa
import tyro
from numpy.typing import NDArray

from lib.archive.archive import SUFFIXES
from lib.faces.registry import DetectorName, DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, Precision, read_bundle
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.face_arrays import main_faces_of
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import Chain

Result = TypeVar("Result")
CORES = len(os.sched_getaffinity(0))
PACKAGES = (
    "deepface==0.0.103", f"tensorflow=={version('tensorflow')}", "tf_keras", "flask",
    f"mtcnn=={version('mtcnn')}", f"numpy=={version('numpy')}",
    f"opencv-python-headless=={version('opencv-python-headless')}",
)  # fmt: skip
SAME = 0.5
"""Intersection over union above which two boxes are of one face."""
CLOSE = 1.0
"""Years between two ages that count as the same."""
BATCH = 32
THEIRS = """
import json, sys, time
import tensorflow as tf
threads, detector, output, *pictures = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
from deepface import DeepFace
from deepface.modules import modeling
model = modeling.build_model(task="facial_attribute", model_name="Age")
predict, ages = model.predict, []
def predict_and_keep(image):
    ages.append(float(predict(image)))
    return ages[-1]
model.predict = predict_and_keep
def analyze(picture):
    return DeepFace.analyze(
        picture, actions=("age", "gender"), detector_backend=detector,
        enforce_detection=False, silent=True,
    )
analyze(pictures[0])
ages.clear()
clock, cpu = time.perf_counter(), time.process_time()
found = [analyze(picture) for picture in pictures]
clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
age = iter(ages)
faces = [
    [
        {"box": [face["region"][k] for k in "xywh"], "age": next(age),
         "female": face["gender"]["Woman"] / 100, "score": face["face_confidence"]}
        for face in picture
    ]
    for picture in found
]
json.dump({"clock": clock, "cpu": cpu, "faces": faces}, open(output, "w"), default=float)
"""


@dataclass(frozen=True)
class Options:
    """Compare with the package `deepface`.

    Attributes:
        photos: Folder of photographs.
        count: How many; they are repeated to that many, mirrored and smaller.
        environment: Folder for the package's environment.
    """

    photos: Path
    count: int = 100
    environment: Path = Path.home() / ".cache" / "face-archive-labels" / "deepface-0.0.103"


@dataclass(frozen=True)
class Way:
    """How ours works: options of jobs.score."""

    detector: DetectorName
    precision: Precision = "float32"

    def __str__(self) -> str:
        return f"--detector {self.detector} --precision {self.precision}"


@dataclass(frozen=True)
class Face:
    """A face as one of both sees it: box x, y, width, height in pixels."""

    box: Sequence[float]
    age: float
    female: float
    score: float


@dataclass(frozen=True)
class Analysis:
    """What was found in each picture, in how many seconds by the clock and on the CPUs."""

    clock: float
    cpu: float
    faces: list[list[Face]]


def main() -> None:
    """Run all and print the tables."""
    options = tyro.cli(Options)
    python = make_environment(options.environment)
    with tempfile.TemporaryDirectory(prefix="vs-deepface-") as folder:
        work = Path(folder)
        photos = make_photos(options.photos, options.count, work / "photos")
        crops = apart(cut_faces, photos, work / "crops")
        bundle = apart(make_bundle, crops, work)
        print(f"{CORES} cores, load before {os.getloadavg()[0]:.1f}")
        found = Way("mtcnn"), Way("deepface")
        compare("photographs, MTCNN in both", photos, found, "mtcnn", bundle, python, work)
        given = Way("none"), Way("none", "bfloat16")
        compare("faces, no detector", crops, given, "skip", bundle, python, work)


def compare(
    name: str,
    pictures: list[Path],
    ways: Sequence[Way],
    theirs: str,
    bundle: Path,
    python: Path,
    work: Path,
) -> None:
    """Measure both and say how they agree."""
    before = {way: apart(analyse, pictures, way, bundle) for way in ways}
    package = run_package(pictures, theirs, python, work)
    after = {way: apart(analyse, pictures, way, bundle) for way in ways}
    print(f"\n{name}: {len(pictures)} pictures")
    report("the package", package, len(pictures))
    for way in ways:
        clock = (before[way].clock + after[way].clock) / 2
        cpu = (before[way].cpu + after[way].cpu) / 2
        ours = Analysis(clock, cpu, before[way].faces)
        print()
        report(f"ours, {way}", ours, len(pictures))
        print(
            f"ratio: {package.clock / clock:.2f} by the clock, {package.cpu / cpu:.2f} on the CPUs"
        )
        print(agreement(ours.faces, package.faces, whole=way.detector == "none"))


def report(who: str, analysis: Analysis, pictures: int) -> None:
    """Print how fast one of them was."""
    print(
        f"{who}: {pictures / analysis.clock:.2f} images/s, {analysis.cpu / pictures:.2f} s of CPU an "
        f"image, {sum(map(len, analysis.faces))} faces"
    )


def agreement(ours: list[list[Face]], theirs: list[list[Face]], whole: bool) -> str:
    """How far apart both are on the faces that both found."""
    pairs = [
        pair
        for mine, others in zip(ours, theirs, strict=True)
        for pair in (zip(mine, others, strict=True) if whole else matched(mine, others))
    ]
    mine, others = (
        np.array([(f.age, f.female) for f in side]) for side in zip(*pairs, strict=True)
    )
    apart_by = np.abs(mine - others)
    sides = np.array([(a.box, b.box) for a, b in pairs], float)
    shifts = np.abs(sides[:, 0] - sides[:, 1]).max(axis=1) / sides[:, 1, 2:].max(axis=1)
    return (
        f"boxes apart by {np.median(shifts):.3f} of their longer side (median)\n"
        f"{len(pairs)} faces found by both, ages from {others[:, 0].min():.1f} to "
        f"{others[:, 0].max():.1f} (standard deviation {others[:, 0].std():.1f})\n"
        f"ages apart: median {np.median(apart_by[:, 0]):.3f} years, 95th percentile "
        f"{np.percentile(apart_by[:, 0], 95):.3f}; within {CLOSE:g} year "
        f"{(apart_by[:, 0] <= CLOSE).mean():.1%}\n"
        f"same gender {((mine[:, 1] > 0.5) == (others[:, 1] > 0.5)).mean():.1%}, probabilities "
        f"apart: median {np.median(apart_by[:, 1]):.4f}"
    )


def matched(mine: list[Face], others: list[Face]) -> list[tuple[Face, Face]]:
    """Each of the others with the one of mine that overlaps it most, if it does enough."""
    pairs = []
    for other in others:
        best = max(mine, key=lambda face: overlap(face.box, other.box), default=None)
        if best is not None and overlap(best.box, other.box) >= SAME:
            pairs.append((best, other))
    return pairs


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    a, b = np.asarray(one, float), np.asarray(other, float)
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / (float(a[2:].prod() + b[2:].prod()) - shared)


def analyse(pictures: list[Path], way: Way, folder: Path) -> Analysis:
    """What the stages of the scoring job say, in this process."""
    chain = chain_of(read_bundle(folder), way)
    table = pa.table({"id": range(len(pictures)), "uri": [str(path) for path in pictures]})
    chain(table.slice(0, 1))
    clock, cpu = time.perf_counter(), time.process_time()
    rows = [
        row
        for start in range(0, len(table), BATCH)
        for row in chain(table.slice(start, BATCH)).to_pylist()
    ]
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    return Analysis(clock, cpu, [[face_of(face) for face in row["faces"]] for row in rows])


def chain_of(bundle: Bundle, way: Way) -> Chain:
    """The stages of one worker of the job."""
    return Chain(
        [
            Fetch(Limits.max_bytes),
            Detect(DetectorSpec(way.detector), bundle.crop, Limits(), CORES),
            Predict(bundle, ("age", "gender"), CORES, way.precision),
            Label(bundle),
        ]
    )


def face_of(face: dict[str, Any]) -> Face:
    """A face of a label row."""
    female = face["gender_score"] if face["gender"] == "female" else 1 - face["gender_score"]
    box = [face["box"][name] for name in ("x", "y", "width", "height")]
    return Face(box, face["age"], female, face["face_score"] or 0.0)


def run_package(pictures: list[Path], detector: str, python: Path, work: Path) -> Analysis:
    """What the package says, in a process of its own environment."""
    output = work / "theirs.json"
    environment = {
        **os.environ,
        "DEEPFACE_HOME": str(work),
        "DEEPFACE_BACKEND_ENGINE": "tensorflow",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [python, "-c", THEIRS, CORES, detector, output, *pictures]
    done = subprocess.run(
        [str(part) for part in command], env=environment, cwd=work, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"the package failed: {done.stderr[-2000:]}")
    said = json.loads(output.read_text())
    faces = [[Face(**face) for face in picture] for picture in said["faces"]]
    return Analysis(said["clock"], said["cpu"], faces)


def make_environment(folder: Path) -> Path:
    """The Python of the package's environment, which is made where it is not there yet."""
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"making {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--compile", *PACKAGES],
            check=True,
            env=environment,
        )
        ready.touch()
    return python


def make_photos(source: Path, count: int, folder: Path) -> list[Path]:
    """The photographs of a folder, again and again, ever smaller and every other time mirrored."""
    folder.mkdir()
    pictures = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not pictures:
        sys.exit(f"no photographs in {source}")
    made = []
    for number in range(count):
        again, which = divmod(number, len(pictures))
        image = cv2.imread(str(pictures[which]))
        assert image is not None
        if again:
            image = cv2.resize(
                image, None, fx=0.85**again, fy=0.85**again, interpolation=cv2.INTER_AREA
            )
            image = image[:, ::-1] if again % 2 else image
        made.append(folder / f"{number:04}.jpg")
        cv2.imwrite(str(made[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return made


def cut_faces(photos: list[Path], folder: Path) -> list[Path]:
    """The largest face of each photograph, prepared as the package does it, as PNG."""
    from lib.models.preprocessing import PREPROCESSINGS

    crop = PREPROCESSINGS["deepface"].crop
    stage = Detect(DetectorSpec("mtcnn"), crop, Limits(), CORES)
    chain = Chain([Fetch(Limits.max_bytes), stage])
    table = pa.table({"id": range(len(photos)), "uri": [str(path) for path in photos]})
    folder.mkdir()
    made: list[Path] = []
    for start in range(0, len(photos), BATCH):
        rows = chain(table.slice(start, BATCH))
        for pixels in main_faces_of(rows, "crops", (crop.size, crop.size, 3)):
            made.append(folder / f"{len(made):04}.png")
            cv2.imwrite(str(made[-1]), pixels[..., ::-1])
    return made


def make_bundle(crops: list[Path], work: Path) -> Path:
    """Weight files where the package looks for them, made for faces like these, and a bundle of them."""
    from jobs import import_weights
    from tests.vgg_face_files import write_random

    home = work / ".deepface" / "weights"
    home.mkdir(parents=True)
    inputs = np.stack([bgr(path) for path in crops[:: max(1, len(crops) // 12)]]) / 255
    files = write_random(home, inputs.astype(np.float32), [("age", 101), ("gender", 2)])
    options = [text for task, file in files.items() for text in (f"--{task}", str(file))]
    import_weights.main([*options, "--output", str(work / "bundle")])
    return work / "bundle"


def bgr(path: Path) -> NDArray[np.uint8]:
    """A picture as the networks take it, but for the scale."""
    return np.asarray(cv2.imread(str(path)), np.uint8)


def apart(function: Callable[..., Result], *args: object) -> Result:
    """Call a function in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


if __name__ == "__main__":
    main()
