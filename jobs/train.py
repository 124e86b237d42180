"""Train the compact model on UTKFace chips: `python -m jobs.train --images TAR … --output RUN`."""

import hashlib
import logging
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import keras
import numpy as np
import tyro

from lib.datasets.labels import Split, split_of
from lib.datasets.utkface import read_names
from lib.training.loop import Faces, Networks, Recipe, gender_index, train

SOURCE_SIDE = 96
"""Chips are kept in memory at this many pixels: a fifth above the largest crop, for the zoom."""


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on the training split, choose nothing on the test split, write the bundle."""
    options = tyro.cli(Options, args=arguments, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    faces = load_faces(options.images)
    trained(options, faces)


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
    logging.info("faces by split: %s", {split: len(r) for split, r in rows.items()})
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
    main()
