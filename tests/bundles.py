"""A bundle for tests: tiny, untrained, the same predictions every time, and no two faces alike."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from lib.models.bundle import Bundle, write_bundle
from lib.models.heads import head
from lib.models.inference_graph import with_inference_graph
from lib.models.model_card import BACKBONE, ModelCard
from lib.network_input import CropSpec, Pixels
from lib.tasks import TASKS

SIDE = 32
Backbone = Callable[[int], keras.Model]
SPREAD = 60.0
"""Times the usual first weights of a head: untrained heads say nearly the same of every face."""


def make_bundle(folder: Path, side: int = SIDE, backbone: Backbone | None = None) -> Bundle:
    """Write a backbone with random weights and both heads, for crops of `side` pixels.

    It has an inference graph, as bundles of jobs.train have: workers need no TensorFlow, which takes
    each of them 4 s of a core to import.
    """
    return with_inference_graph(make_plain_bundle(folder, side, backbone))


def make_plain_bundle(folder: Path, side: int = SIDE, backbone: Backbone | None = None) -> Bundle:
    """The same without the graph."""
    keras.utils.set_random_seed(0)
    trunk = (backbone or tiny)(side)
    networks = {
        BACKBONE: trunk,
        **{task: _opinionated(head(task, trunk.output_shape[-1])) for task in TASKS},
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


def tiny(size: int) -> keras.Model:
    """The cheapest backbone that tells pictures apart: crops → features, float (n, 64)."""
    inputs = x = keras.Input((size, size, 3), name="crops")
    for width in (16, 64):
        x = layers.Conv2D(width, 3, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, features, name="tiny")


def _opinionated(network: keras.Model) -> keras.Model:
    network.set_weights([np.asarray(weights) * SPREAD for weights in network.get_weights()])
    return network
