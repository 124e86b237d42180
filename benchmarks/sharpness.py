"""Does a model take sharpness for age?

    python -m benchmarks.sharpness --faces FOLDER/faces --photos FOLDER

Crops of sharp photographs have finer detail than the faces of most training sets, and wrinkles are fine
detail, too. Labels the faces of a test split, whose ages are known, and the main faces of photographs,
as they are and softened more and more. Ages that depend on the people alone stay as they are.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import tyro
from numpy.typing import NDArray

from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, read_bundle
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.face_arrays import main_faces_of
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.stage import Stopwatch
from lib.tasks.expectation import expected_age
from lib.training.faces import load_faces

SIGMAS = (0.0, 0.5, 0.7, 1.0, 1.4)
"""Of Gaussian blurs, in pixels of the crop."""


@dataclass(frozen=True)
class Options:
    """Compare the ages of faces as they are and softened.

    Attributes:
        faces: Folder faces/ of jobs.prepare; the split test is taken.
        photos: Folder of photographs.
        model: Bundle folder of the model.
    """

    faces: Path
    photos: Path
    model: Path = Path("models/default")


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    bundle = read_bundle(options.model)
    photos = main_faces(options.photos, bundle)
    with tempfile.TemporaryDirectory() as cache:
        faces = load_faces(options.faces, "test", bundle.crop.size, Path(cache))
        known = faces.images()
    print(f"{bundle.name}; {len(known):,} faces of known age, {len(photos)} of photographs")
    print(f"sharpness: {sharpness(known):.1f} and {sharpness(photos):.1f}")
    print("blur   known age: MAE    bias   photographs: median age   80% of them")
    for sigma in SIGMAS:
        error = ages(bundle, blurred(known, sigma)) - faces.classes["age"]
        low, median, high = np.percentile(ages(bundle, blurred(photos, sigma)), [10, 50, 90])
        print(
            f"{sigma:4.1f}   {np.abs(error).mean():14.2f}   {error.mean():+5.2f}   "
            f"{median:23.1f}   {low:.0f} to {high:.0f}"
        )


def main_faces(folder: Path, bundle: Bundle) -> NDArray[np.uint8]:
    """The first crop of every photograph in which there is a face, as the scoring job makes them."""
    files = sorted(
        str(file) for file in folder.iterdir() if file.suffix in (".jpg", ".jpeg", ".png")
    )
    rows = pa.table({"id": range(len(files)), "uri": files})
    for stage in (
        Fetch(Limits.max_bytes),
        Detect(DetectorSpec("mtcnn"), bundle.crop, Limits(), threads=1),
    ):
        stage.setup(Stopwatch())
        rows = stage(rows)
    return main_faces_of(rows, "crops", (bundle.crop.size, bundle.crop.size, 3))


def sharpness(crops: NDArray[np.uint8]) -> float:
    """The median over crops of the standard deviation of the Laplacian of grey."""
    grey = (cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops)
    return float(np.median([cv2.Laplacian(g, cv2.CV_32F).std() for g in grey]))


def blurred(crops: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Soften."""
    return np.stack([cv2.GaussianBlur(c, (0, 0), sigma) for c in crops]) if sigma else crops


def ages(bundle: Bundle, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Expected ages, (n,) in years."""
    from lib.models.tensorflow_predictor import TensorflowPredictor

    return expected_age(TensorflowPredictor(bundle, ("age",))(crops)["age"]).age


if __name__ == "__main__":
    main()
