"""Does a face get the same label however its photograph was stored?

    python -m benchmarks.consistency --photos FOLDER --peers models/open

Labels the main face of each photograph, and the same face smaller, compressed, mirrored, and cropped 5%
larger. Beside it stands how sure the genders are, and which other models contradict them.
"""

import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lib.labeller import Face, Labeller
from lib.models.bundle import read_bundle, write_card
from lib.network_input import CropSpec

LARGER = 1.05
UNSURE = 0.8
"""A gender_score below it leaves the other gender more than 0.2."""

SAME_FACE = 0.5
"""Intersection over union from which two boxes are of one face."""

Variant = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Options:
    """Compare the labels of photographs with those of changed copies.

    Attributes:
        photos: Folder of photographs.
        model: Bundle folder of the model.
        mirror: Label by the mean over each face and its mirror image.
        peers: Bundle folders of models whose genders are compared.
    """

    photos: Path
    model: Path = Path("models/default")
    mirror: bool = False
    peers: tuple[Path, ...] = ()


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    pictures = {file.name: opened(file) for file in sorted(options.photos.glob("*.jp*g"))}
    labeller = Labeller(options.model, mirror=options.mirror)
    faces = {name: main_face(labeller, picture) for name, picture in pictures.items()}
    known = {name: face for name, face in faces.items() if face is not None}
    print(f"{labeller_name(options)}: {len(known)} main faces in {len(pictures)} photographs")
    for name in sorted(pictures.keys() - known.keys()):
        print(f"  {name}: {labeller.label(pictures[name]).error or 'no face'}")
    for name, variant in VARIANTS.items():
        changes = []
        for picture, face in known.items():
            copy = variant(pictures[picture])
            changes.append(change(face, same_face(labeller, copy, pictures[picture], face, name)))
        report(name, changes)
    with tempfile.TemporaryDirectory() as folder:
        larger = Labeller(with_larger_crop(options.model, Path(folder)), mirror=options.mirror)
        found = {name: main_face(larger, pictures[name]) for name in known}
    report("crop 5% larger", [change(face, found[name]) for name, face in known.items()])
    print_genders(known, pictures, options)


def labeller_name(options: Options) -> str:
    """The model, in words."""
    return f"{read_bundle(options.model).name}{', mirrored' if options.mirror else ''}"


def opened(file: Path) -> Image.Image:
    """The upright picture in RGB."""
    return ImageOps.exif_transpose(Image.open(file)).convert("RGB")


def main_face(labeller: Labeller, picture: Image.Image) -> Face | None:
    """The largest face; None: there is none."""
    return next(iter(labeller.label(picture)), None)


def smaller(factor: int) -> Variant:
    """Shrinks a picture by a whole factor."""
    return lambda picture: picture.reduce(factor)


def compressed(picture: Image.Image) -> Image.Image:
    """The picture after JPEG of quality 60."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=60)
    return Image.open(data)


VARIANTS: dict[str, Variant] = {
    "1/2 of the size": smaller(2),
    "1/3 of the size": smaller(3),
    "1/6 of the size": smaller(6),
    "JPEG quality 60": compressed,
    "mirrored": ImageOps.mirror,
}


def same_face(
    labeller: Labeller, copy: Image.Image, original: Image.Image, face: Face, variant: str
) -> Face | None:
    """The face of a copy that lies where the face of the original does; None: it is not found."""
    scale = original.width / copy.width
    for other in labeller.label(copy):
        box = np.asarray(other.box, np.float32) * scale
        if variant == "mirrored":
            box[0] = original.width - box[0] - box[2]
        if overlap(box, np.asarray(face.box, np.float32)) > SAME_FACE:
            return other
    return None


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes: x, y, width, height."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    both = np.prod(np.maximum(high - low, 0))
    return float(both / (np.prod(one[2:]) + np.prod(other[2:]) - both))


def with_larger_crop(model: Path, folder: Path) -> Path:
    """A copy of a bundle that cuts faces out with 5% more around them."""
    copy = Path(shutil.copytree(model, folder / "larger"))
    card = read_bundle(copy).card
    return write_card(copy, replace(card, crop=larger_crop(card.crop))).folder


def larger_crop(crop: CropSpec) -> CropSpec:
    """The same with 5% more of the picture in each direction."""
    template = tuple((0.5 + (x - 0.5) / LARGER, 0.5 + (y - 0.5) / LARGER) for x, y in crop.template)
    return replace(crop, template=template, margin=crop.margin + (LARGER - 1) / 2)


def change(face: Face, other: Face | None) -> float | None:
    """Years between the ages of a face and of its copy, absolute; None: it was not found."""
    if other is None or face.age is None or other.age is None:
        return None
    return abs(face.age - other.age)


def report(variant: str, changes: list[float | None]) -> None:
    """A line about all faces."""
    found = [years for years in changes if years is not None]
    print(
        f"{variant:16}  {len(found)} of {len(changes)} faces found, ages differ by "
        f"{np.mean(found):.2f} years on average, at most {max(found):.1f}"
    )


def print_genders(
    known: dict[str, Face], pictures: dict[str, Image.Image], options: Options
) -> None:
    """Faces of unsure gender, and those that other models contradict."""
    unsure = {name: face for name, face in known.items() if (face.gender_score or 0) < UNSURE}
    print(f"unsure genders (below {UNSURE}): {len(unsure)}")
    for name, face in unsure.items():
        print(f"  {name}: {face.gender} {face.gender_score:.2f}, {face.age:.0f} years")
    for peer in options.peers:
        labeller = Labeller(peer)
        others = {name: main_face(labeller, pictures[name]) for name in known}
        contradicted = [n for n, o in others.items() if o and o.gender != known[n].gender]
        print(f"{peer} contradicts {len(contradicted)} of {len(known)}: {' '.join(contradicted)}")


if __name__ == "__main__":
    main()
