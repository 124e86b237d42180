"""Calibrate a bundle on known faces, measure it, and write its card.

    python -m models.calibrate --bundle FOLDER --faces FACES

`jobs.train` does the same at its end; this is for imported models, and for cards of earlier versions. The
networks do not change. What is fitted are a few numbers: see `lib.training.card.calibrate`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """Calibrate a bundle on the split val, and measure it on the split test.

    Attributes:
        bundle: Folder of it, whose card is written anew.
        faces: Folder faces/ of jobs.prepare.
    """

    bundle: Path
    faces: Path


def main() -> None:
    """Undo an earlier calibration, fit, measure, write."""
    options = tyro.cli(Options)
    from lib.common import tensorflow_settings  # noqa: F401 - it quiets TensorFlow; isort: skip
    from lib.datasets.labelled_faces import LabelledFaces
    from lib.datasets.labels import Split
    from lib.datasets.registry import source_of
    from lib.evaluation.comparison import Comparison
    from lib.evaluation.labelling import label_faces
    from lib.models.bundle import read_bundle, write_card
    from lib.models.model_card import NOT_CALIBRATED
    from lib.storage.folder import folder
    from lib.training.card import complete

    data = folder(options.faces)
    val = LabelledFaces(data, "val")
    count = len(val.truth())
    card = replace(read_bundle(options.bundle).card, calibration=NOT_CALIBRATED, under_age=None)
    if card.training is None or not card.training.faces:
        card = replace(card, calibration_data=f"{count:,} faces of {source_of(data)}")
    write_card(options.bundle, card)

    def label(split: Split, mirror: bool) -> Comparison:
        return label_faces(read_bundle(options.bundle), LabelledFaces(data, split), mirror=mirror)

    complete(options.bundle, label, val, count)


if __name__ == "__main__":
    main()
