"""From the best checkpoint of a run to a bundle with a complete card."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lib.evaluation.comparison import Comparison
from lib.evaluation.metrics import evaluate
from lib.evaluation.predictions import predictions_of
from lib.faces.crop import CropSpec
from lib.models.bundle import CARD, Calibration, read_bundle, write_bundle
from lib.models.calibration import fit_interval_scale, fit_temperature
from lib.models.heads import GENDER_LABELS
from lib.models.model_card import as_markdown
from lib.training.checkpoint import read_checkpoint
from lib.training.loop import AVERAGED
from lib.training.networks import build_networks
from lib.training.recipe import Backbone, Recipe

TEXT = "CARD.md"
TEMPLATE = ((0.305, 0.29), (0.695, 0.29), (0.5, 0.52), (0.325, 0.685), (0.675, 0.685))
"""Where MTCNN finds the landmarks in aligned chips as UTKFace has them: the medians over 156 of them,
made symmetric. Faces of photographs are brought to the same places."""


def save(
    checkpoint: Path, backbone: Backbone, recipe: Recipe, folder: Path, facts: Mapping[str, Any]
) -> None:
    """Write a bundle, not yet calibrated, with the averaged weights of a checkpoint.

    Args:
        checkpoint: folder of one that was written after an epoch.
        backbone: that was trained.
        recipe: it was trained with.
        folder: for the bundle.
        facts: for its card; JSON.
    """
    assert recipe.size is not None
    arrays, position = read_checkpoint(checkpoint)
    networks = build_networks(backbone, recipe.size, recipe.dropout, tasks=recipe.tasks)
    values = iter(arrays[AVERAGED])
    for variable in networks.variables:
        variable.assign(next(values))
    write_bundle(
        folder,
        name=f"{backbone}-{recipe.size}",
        networks={name: _Compressed(model) for name, model in networks.models.items()},
        crop=CropSpec(recipe.size, "landmarks", template=TEMPLATE),
        pixels=networks.pixels,
        gender_labels=GENDER_LABELS,
        calibration=Calibration(),
        facts={**facts, "validation": position.history[-1]},
    )


class _Compressed:
    """Saves a network whose kernels are rounded to half precision, in half the space.

    They stay float32 for whoever loads them. Vectors are not rounded: variances can be of any size.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    def save(self, filepath: Path) -> None:
        """Write the network to a `.keras` file."""
        for weight in self._model.weights:
            if len(weight.shape) > 1:
                weight.assign(weight.numpy().astype(np.float16).astype(np.float32))
        self._model.save(filepath)
        loose = filepath.with_suffix(".loose")
        filepath.rename(loose)
        with (
            zipfile.ZipFile(loose) as source,
            zipfile.ZipFile(filepath, "w", zipfile.ZIP_DEFLATED) as target,
        ):
            for member in source.infolist():
                target.writestr(member.filename, source.read(member))
        loose.unlink()


def calibrate(folder: Path, validation: Comparison) -> None:
    """Fit on faces that were not trained on, as the bundle labels them, and write it to the card."""
    p = predictions_of(validation)
    assert p.age_low is not None
    assert p.age_high is not None
    fitted = {}
    if (known := ~np.isnan(p.age)).any():
        fitted["age_interval_scale"] = fit_interval_scale(
            p.true_age[known], p.age[known], p.age_low[known], p.age_high[known]
        )
    if (known := ~np.isnan(p.female)).any():
        is_female = p.true_gender == GENDER_LABELS[0]
        fitted["gender_temperature"] = fit_temperature(is_female[known], p.female[known])
    _change_card(folder, calibration=vars(Calibration(**fitted)))


def with_metrics(folder: Path, test: Comparison) -> None:
    """Write to the card how good the bundle is on faces that chose nothing."""
    _change_card(folder, metrics={"test": evaluate(predictions_of(test))})


def with_text(folder: Path) -> None:
    """Write the finished card for people, too."""
    card = json.loads((folder / CARD).read_text("utf-8"))
    (folder / TEXT).write_text(as_markdown(card), "utf-8")


def _change_card(folder: Path, **facts: Any) -> None:
    card = json.loads((folder / CARD).read_text("utf-8"))
    text = json.dumps({**card, **facts}, indent=2, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", "utf-8")
    read_bundle(folder)
