"""A bundle for tests: tiny, untrained, the same predictions every time, and no two faces alike."""

from pathlib import Path

import keras
import numpy as np

from lib.models.backbones.compact import WIDTHS, compact
from lib.models.bundle import Bundle, write_bundle
from lib.models.heads import head
from lib.models.model_card import BACKBONE, ModelCard
from lib.network_input import CropSpec, Pixels
from lib.tasks import TASKS

SIDE = 32
SPREAD = 60.0
"""Times the usual first weights of a head: untrained heads say nearly the same of every face."""


def make_bundle(folder: Path, side: int = SIDE) -> Bundle:
    """Write a compact backbone with random weights and both heads, for crops of `side` pixels."""
    keras.utils.set_random_seed(0)
    networks = {
        BACKBONE: compact(side),
        **{task: _opinionated(head(task, WIDTHS[-1])) for task in TASKS},
    }
    return write_bundle(
        folder,
        networks,
        ModelCard(
            "tiny",
            CropSpec(size=side, align="box"),
            Pixels(),
            calibration={"age_interval_scale": 1.5, "gender_temperature": 2.0},
        ),
    )


def _opinionated(network: keras.Model) -> keras.Model:
    network.set_weights([np.asarray(weights) * SPREAD for weights in network.get_weights()])
    return network
