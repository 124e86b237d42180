"""Published VGG-Face weights or ONNX networks → a bundle to score with, or a start for training.

`python -m jobs.import_weights --help`
"""

import gc
import hashlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lib.common import options as command_line
from lib.common.code_version import code_version
from lib.common.errors import UserError
from lib.models.backbones.vgg_face_weights import (
    CLASSES,
    IDENTITIES,
    SIZE,
    Layer,
    WeightFile,
    convolutions,
    equal,
    top,
)
from lib.models.bundle import CARD, Network, write_bundle
from lib.models.model_card import BACKBONE, ModelCard, NetworkFile
from lib.models.onnx_description import read_description
from lib.models.preprocessing import PREPROCESSINGS, Name
from lib.tasks import TASKS

if TYPE_CHECKING:
    import keras

log = logging.getLogger("import_weights")

START = "backbone.keras"


@dataclass(frozen=True)
class Options:
    """Turn published weights into a bundle to score with, or into a start for training.

    Attributes:
        output: Folder for the bundle, or for the backbone to train.
        onnx: A JSON file that describes ONNX classifiers of age and gender, which lie beside it: see
            docs/training.md. They are computed on CPUs.
        age: age_model_weights.h5 of the DeepFace model releases.
        gender: gender_model_weights.h5 of the same; it goes with --age.
        backbone: vgg_face_weights.h5 of the same, in place of both: a start for jobs.train.
        preprocessing: How faces reach the models. deepface: as the package of that name does it;
            training: with the margin of the pictures that the models were trained on.
        name: Of the model of --age and --gender, in every label row.
    """

    output: Path
    onnx: Path | None = None
    age: Path | None = None
    gender: Path | None = None
    backbone: Path | None = None
    preprocessing: Name = "deepface"
    name: str = "vgg-face"

    def check(self) -> None:
        """Refuse options that do not fit together, and an output that is taken.

        Raises:
            UserError: names the option and the value.
        """
        if self.onnx is not None and (self.backbone or self.age or self.gender):
            raise UserError(
                "--onnx makes a bundle by itself: leave out --backbone, --age and --gender"
            )
        if self.backbone is not None and (self.age is not None or self.gender is not None):
            raise UserError(
                "--backbone makes a start for training, --age and --gender a bundle: not both"
            )
        if not (self.onnx or self.backbone) and (self.age is None or self.gender is None):
            raise UserError(
                "give --onnx, or --age and --gender for a bundle, or --backbone for a start of training"
            )
        taken = self.output / (CARD if self.backbone is None else START)
        if taken.exists():
            raise UserError(f"{str(taken)!r} is there already; give another --output")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the options and the files, then write what was asked for."""
    options = command_line.parse(Options, arguments)
    options.check()
    try:
        if options.onnx is not None:
            write_onnx(options.onnx, options.output)
        elif options.backbone is not None:
            write_start(WeightFile(options.backbone, IDENTITIES), options.output)
        else:
            given = {task: getattr(options, task) for task in TASKS}
            files = {task: WeightFile(file, CLASSES[task]) for task, file in given.items()}
            write_models(files, options)
    except OSError as error:
        raise UserError(
            f"cannot write to --output {str(options.output)!r}: {error.strerror or error}"
        ) from None
    return 0


def write_models(files: Mapping[str, WeightFile], options: Options) -> None:
    """Write the bundle: with one backbone where the convolutions are equal, else with two networks."""
    from lib.common import tensorflow_settings  # noqa: F401 - it hides TensorFlow's messages

    first, *others = files.values()
    shared = all(equal(first, other, convolutions()) for other in others)
    log.info(
        "the convolutions of both files are %s",
        "equal: stored and computed once" if shared else "different: two whole networks",
    )
    preprocessing = PREPROCESSINGS[options.preprocessing]
    write_bundle(
        options.output,
        networks=on_one_backbone(files) if shared else apart(files),
        # The order of the files' genders, Woman and Man, is that of the task.
        card=ModelCard(
            name=options.name,
            crop=preprocessing.crop,
            pixels=preprocessing.pixels,
            preprocessing=options.preprocessing,
            sources={task: source(file) for task, file in files.items()},
        ),
    )
    sys.stdout.write(f"bundle: {options.output}\n")


def write_onnx(description: Path, output: Path) -> None:
    """Write the bundle of ONNX networks."""
    from lib.models.onnx_import import write_onnx_bundle  # ONNX takes a second to import

    write_onnx_bundle(read_description(description), output, code_version())
    sys.stdout.write(f"bundle: {output}\n")


def on_one_backbone(files: Mapping[str, WeightFile]) -> dict[str, Network]:
    """The convolutions once, and a top for each task."""
    from lib.models.backbones.vgg_face import EMPTY, vgg_face_convolutions, vgg_face_top

    tops: dict[str, Network] = {
        task: Filled(partial(vgg_face_top, CLASSES[task], EMPTY), file, top(CLASSES[task]))
        for task, file in files.items()
    }
    first = next(iter(files.values()))
    return {
        BACKBONE: Filled(partial(vgg_face_convolutions, EMPTY), first, convolutions()),
        **tops,
    }


def apart(files: Mapping[str, WeightFile]) -> dict[str, Network]:
    """A whole network for each task."""
    from lib.models.backbones.vgg_face import EMPTY, vgg_face

    return {
        task: Filled(
            partial(vgg_face, CLASSES[task], EMPTY), file, [*convolutions(), *top(CLASSES[task])]
        )
        for task, file in files.items()
    }


def write_start(file: WeightFile, output: Path) -> None:
    """Write the backbone that `jobs.train --backbone vgg-face --weights` takes."""
    from lib.common import tensorflow_settings  # noqa: F401 - it hides TensorFlow's messages
    from lib.models.backbones.vgg_face import EMPTY, vgg_face_features

    *without_classes, _ = [*convolutions(), *top(IDENTITIES)]
    output.mkdir(parents=True, exist_ok=True)
    unfinished = output / f"unfinished-{START}"
    Filled(partial(vgg_face_features, SIZE, EMPTY), file, without_classes).save(unfinished)
    unfinished.rename(output / START)
    sys.stdout.write(
        f"backbone: {output / START}\n"
        f"python -m jobs.train --backbone vgg-face --weights {output / START} …\n"
    )


@dataclass(frozen=True)
class Filled:
    """A network that is built and filled when it is saved, so that one is in memory at a time.

    Attributes:
        build: makes the network, whose layers have weights in the order of `layers`.
        file: whose weights it gets.
        layers: which of them.
    """

    build: "Callable[[], keras.Model]"
    file: WeightFile
    layers: Sequence[Layer]

    def save(self, filepath: Path) -> None:
        """Build, fill and write it."""
        network = self.build()
        for variable, values in zip(network.weights, self.file.read(self.layers), strict=True):
            variable.assign(values.reshape(variable.shape))
        network.save(filepath)
        del network
        gc.collect()  # layers and tensors know each other: nothing else frees them


def source(file: WeightFile) -> NetworkFile:
    """Which file weights came from."""
    with file.file.open("rb") as stream:
        return NetworkFile(file.file.name, hashlib.file_digest(stream, "sha256").hexdigest())


if __name__ == "__main__":
    command_line.run(main, "the output is not complete: give the same command again")
