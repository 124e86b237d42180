"""From the best checkpoint of a run to a bundle with a complete card."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import ml_dtypes
import numpy as np

from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import Split
from lib.evaluation.comparison import Comparison
from lib.evaluation.honesty import fit_certainty, fit_under, honesty, turns_of
from lib.evaluation.metrics import AllPredictions, evaluate
from lib.models.backbones.registry import BackboneName
from lib.models.bundle import read_bundle, write_bundle, write_card
from lib.models.card_text import MIRRORED, as_markdown
from lib.models.inference_graph import with_inference_graph
from lib.models.model_card import ModelCard, Training
from lib.network_input import CropSpec
from lib.tasks import GROUPS, TASKS
from lib.tasks.gender import GENDER
from lib.tasks.task import Floats
from lib.training.checkpoint import read_checkpoint
from lib.training.loop import AVERAGED
from lib.training.networks import build_networks
from lib.training.recipe import Recipe

LabelSplit = Callable[[Split, bool], Comparison]
TEXT = "CARD.md"
TEMPLATE = ((0.305, 0.29), (0.695, 0.29), (0.5, 0.52), (0.325, 0.685), (0.675, 0.685))
"""Where MTCNN finds the landmarks in aligned chips as UTKFace has them: the medians over 156 of them,
made symmetric. Faces of photographs are brought to the same places."""


def save(
    checkpoint: Path,
    backbone: BackboneName,
    recipe: Recipe,
    folder: Path,
    training: Training,
    code: str,
) -> None:
    """Write a bundle, not yet calibrated, with the averaged weights of a checkpoint.

    Args:
        checkpoint: folder of one that was written after an epoch.
        backbone: that was trained.
        recipe: it was trained with.
        folder: for the bundle.
        training: for its card.
        code: version of the code, for its card.
    """
    assert recipe.size is not None
    arrays, position = read_checkpoint(checkpoint)
    networks = build_networks(backbone, recipe.size, recipe.dropout, tasks=recipe.tasks)
    values = iter(arrays[AVERAGED])
    for variable in networks.variables:
        variable.assign(next(values))
    card = ModelCard(
        name=f"{backbone}-{recipe.size}",
        crop=CropSpec(recipe.size, "landmarks", template=TEMPLATE),
        pixels=networks.pixels,
        training=training,
        code=code,
        validation=position.history[-1],
    )
    files = {name: _Compressed(model) for name, model in networks.models.items()}
    with_inference_graph(write_bundle(folder, files, card))


LARGE_KERNEL = 1 << 15
"""Numbers in a kernel from which bfloat16 is enough. Of all kernels of the embedded model, the depthwise
ones among them, it would move ages by 0.14 years on average; of the large ones, 97% of its numbers, by
0.014."""


class _Compressed:
    """Saves a network whose kernels are rounded to half precision, in half the space.

    Readers load them as float32. Vectors are not rounded: variances can be of any size.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    def save(self, filepath: Path) -> None:
        """Write the network to a `.keras` file."""
        for weight in self._model.weights:
            if len(weight.shape) > 1:
                kernel = weight.numpy()
                half = ml_dtypes.bfloat16 if kernel.size >= LARGE_KERNEL else np.float16
                weight.assign(kernel.astype(half).astype(np.float32))
        self._model.save(filepath)
        loose = filepath.with_suffix(".loose")
        filepath.rename(loose)
        with (
            zipfile.ZipFile(loose) as source,
            # Of the embedded model level 3 leaves 4% more in a quarter of the time, and level 9 leaves 5%
            # less in five times of it.
            zipfile.ZipFile(filepath, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target,
        ):
            for member in source.infolist():
                target.writestr(member.filename, source.read(member))
        loose.unlink()


def complete(folder: Path, label: LabelSplit, val: LabelledFaces, count: int) -> None:
    """Calibrate a bundle on validation, measure it on test, and write its card, also for people.

    Args:
        folder: of the bundle.
        label: labels the faces of a split with the bundle as it is then, by the mean over each face and
            its mirror image where the second argument is true.
        val: all faces of validation.
        count: of these.
    """
    # How a head is turned does not depend on its label: of all faces, also of those that do not count.
    calibrate(folder, label("val", False), turns_of(val, count))
    with_metrics(folder, label("test", False), label("test", True))
    with_text(folder)


def calibrate(folder: Path, validation: Comparison, turns: Floats) -> None:
    """Fit on faces that were not trained on, and write it to the card.

    Args:
        folder: of the bundle.
        validation: the faces as the bundle labels them before.
        turns: of `lib.evaluation.honesty.turns_of`, of the same faces.
    """
    predictions = AllPredictions.of(validation).tasks
    fitted = {TASKS[name].factor: TASKS[name].calibrate(of) for name, of in predictions.items()}
    temperature = fitted[GENDER.factor]
    assert isinstance(temperature, float)
    card = replace(
        read_bundle(folder).card,
        calibration=fitted,
        under_age=fit_under(validation),
        certainty=fit_certainty(validation, temperature, turns),
    )
    write_card(folder, card)


def with_metrics(folder: Path, test: Comparison, mirrored: Comparison) -> None:
    """Write to the card how good the bundle is on faces that chose nothing.

    Args:
        folder: of the bundle.
        test: the faces as the bundle labels them.
        mirrored: the same by the mean over each face and its mirror image.
    """
    card = read_bundle(folder).card
    points = card.under_age.operating_points if card.under_age else ()
    figures = evaluate(AllPredictions.of(test)) | honesty(test, points)
    of_mirrored = evaluate(AllPredictions.of(mirrored))
    overall = {key: value for key, value in of_mirrored.items() if key not in GROUPS.values()}
    write_card(folder, replace(card, metrics={"test": figures, MIRRORED: overall}))


def with_text(folder: Path) -> None:
    """Write the finished card for people, too."""
    (folder / TEXT).write_text(as_markdown(read_bundle(folder).card), "utf-8")
