"""A bundle for tests: tiny, untrained, the same predictions every time, and no two faces alike."""

from pathlib import Path

import keras
import numpy as np

from lib.models.backbones.compact import WIDTHS, compact_trunk
from lib.models.bundle import Bundle, Calibration, Pixels, write_bundle
from lib.models.heads import GENDER_LABELS, age_head, gender_head
from lib.network_input import CropSpec

SIDE = 32
SPREAD = 60.0
"""Times the usual first weights of a head: untrained heads say nearly the same of every face."""


def make_bundle(folder: Path, side: int = SIDE) -> Bundle:
    """Write a compact trunk with random weights and both heads, for crops of `side` pixels."""
    keras.utils.set_random_seed(0)
    networks = {
        "trunk": compact_trunk(side),
        "age": _opinionated(age_head(WIDTHS[-1])),
        "gender": _opinionated(gender_head(WIDTHS[-1])),
    }
    return write_bundle(
        folder,
        name="tiny",
        networks=networks,
        crop=CropSpec(size=side, align="box"),
        pixels=Pixels(),
        gender_labels=GENDER_LABELS,
        calibration=Calibration(age_interval_scale=1.5, gender_temperature=2.0),
        facts={},
    )


def _opinionated(head: keras.Model) -> keras.Model:
    head.set_weights([np.asarray(weights) * SPREAD for weights in head.get_weights()])
    return head
