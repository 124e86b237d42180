"""Train the compact model on UTKFace chips: `python -m jobs.train --images TAR … --output RUN`."""

import hashlib
import logging
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import keras
import numpy as np

from lib import options as command_line
from lib.calibration import apply_temperature, fit_interval_scale, fit_temperature
from lib.datasets.labels import Split, split_of
from lib.datasets.utkface import read_names
from lib.faces.crop import CropSpec
from lib.metrics import Predictions, evaluate
from lib.models.bundle import Calibration, Pixels, write_bundle
from lib.models.expectation import age_interval, expected_age
from lib.models.heads import GENDER_LABELS
from lib.training.loop import MEAN, STD, Faces, Networks, Recipe, gender_index, predict, train

log = logging.getLogger("train")

SOURCE_SIDE = 96
"""Chips are kept in memory at this many pixels: a fifth above the largest crop, for the zoom."""

UTKFACE_TEMPLATE = ((0.305, 0.29), (0.695, 0.29), (0.5, 0.52), (0.325, 0.685), (0.675, 0.685))
"""Where MTCNN finds the landmarks in UTKFace's aligned chips: the medians over 156 of them, made
symmetric. Faces of photographs are brought to the same places."""


@dataclass(frozen=True)
class Options:
    """Train the compact model on UTKFace chips.

    Attributes:
        images: Tar files of UTKFace chips.
        output: Folder for the trained bundle.
        recipe: How to train.
    """

    images: tuple[Path, ...]
    output: Path
    recipe: Recipe = field(default_factory=Recipe)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train on the training split, choose nothing on the test split, write the bundle."""
    options = command_line.parse(Options, arguments, "python -m jobs.train")
    faces = load_faces(options.images)
    networks = trained(options, faces)
    calibration = calibrate(networks, faces["val"], options.recipe.size)
    write_bundle(
        options.output / "bundle",
        name=f"compact-{options.recipe.size}",
        networks=vars(networks),
        crop=CropSpec(options.recipe.size, "landmarks", template=UTKFACE_TEMPLATE),
        pixels=Pixels(mean=MEAN, std=STD),
        gender_labels=GENDER_LABELS,
        calibration=calibration,
        facts={
            "training": {
                "data": "UTKFace aligned chips (https://susanqq.github.io/UTKFace/), "
                "for non-commercial research only; so are these weights",
                "faces": {split: len(part) for split, part in faces.items()},
                "split": "by the sha256 of each picture: no picture is in two of them",
                "recipe": asdict(options.recipe),
            },
            "metrics": {
                "test": evaluate(predictions(networks, faces["test"], options, calibration))
            },
            "limits": "Not for decisions about individuals. A predicted gender is how such a face "
            "is labelled in data sets of this kind, not who somebody is.",
        },
    )
    log.info("bundle: %s", options.output / "bundle")
    return 0


def calibrate(networks: Networks, validation: Faces, size: int) -> Calibration:
    """Fit on faces that were not trained on."""
    age, gender = predict(networks, validation, size)
    expected = expected_age(age).age
    truth = validation.ages.astype(np.float64)
    is_female = validation.genders == GENDER_LABELS.index("female")
    return Calibration(
        age_interval_scale=fit_interval_scale(truth, expected, *age_interval(age)),
        gender_temperature=fit_temperature(is_female, gender[:, GENDER_LABELS.index("female")]),
    )


def predictions(
    networks: Networks, faces: Faces, options: Options, calibration: Calibration
) -> Predictions:
    """What the calibrated model says of faces, beside the truth."""
    age, gender = predict(networks, faces, options.recipe.size)
    low, high = age_interval(age, scale=calibration.age_interval_scale)
    female = gender[:, GENDER_LABELS.index("female")]
    return Predictions(
        true_age=faces.ages.astype(np.float64),
        true_gender=np.array(GENDER_LABELS, object)[faces.genders],
        age=expected_age(age).age,
        female=apply_temperature(female, calibration.gender_temperature),
        age_argmax=age.argmax(axis=1).astype(np.float64),
        age_low=low,
        age_high=high,
    )


def trained(options: Options, faces: dict[Split, Faces]) -> Networks:
    """Train, or take up the networks that an earlier start of the same run has finished."""
    bundle = options.output / "bundle"
    files = {name: bundle / f"{name}.keras" for name in ("trunk", "age", "gender")}
    if all(f.exists() for f in files.values()):
        return Networks(*(keras.models.load_model(f, safe_mode=True) for f in files.values()))
    networks = train(faces["train"], faces["val"], options.recipe)
    bundle.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        getattr(networks, name).save(file)
    return networks


def load_faces(tars: Sequence[Path]) -> dict[Split, Faces]:
    """Read all chips that have both labels, once for each distinct picture, by split."""
    chips: dict[str, tuple[str, bytes]] = {}
    for name, data in _members(tars):
        chips.setdefault(hashlib.sha256(data).hexdigest(), (name, data))
    labels = read_names([name for name, _ in chips.values()])
    rows: dict[Split, list[tuple[np.ndarray, int, str]]] = {"train": [], "val": [], "test": []}
    for (sha256, (_, data)), age, gender in zip(
        chips.items(), labels["age"].to_pylist(), labels["gender"].to_pylist(), strict=True
    ):
        if age is not None and gender is not None and 0 <= age <= 100:
            rows[split_of(sha256)].append((_pixels(data), age, gender))
    log.info("faces by split: %s", {split: len(r) for split, r in rows.items()})
    return {split: _faces(r) for split, r in rows.items()}


def _members(tars: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(tars):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def _pixels(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None, "a chip of the set is damaged"
    return cv2.resize(image, (SOURCE_SIDE, SOURCE_SIDE), interpolation=cv2.INTER_AREA)


def _faces(rows: list[tuple[np.ndarray, int, str]]) -> Faces:
    images, ages, genders = zip(*rows, strict=True)
    return Faces(np.stack(images), np.array(ages, np.int64), gender_index(list(genders)))


if __name__ == "__main__":
    command_line.run(main)
