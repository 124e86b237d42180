"""`card.json`: how the networks of a bundle are used, and what people should know about them.

`ModelCard` has one reader and one writer: `from_dict` and `to_dict`. Readers ignore keys that they do
not know, so that cards of other versions can be read.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from lib.models.certainty import Certainty
from lib.network_input import CropSpec, Pixels
from lib.tasks import TASKS
from lib.tasks.task import Factor
from lib.tasks.under_age import UnderAge

FORMAT = 1
BACKBONE = "trunk"
"""Name of the backbone's network in cards and files."""
CLASS_LABELS: dict[str, tuple[str, ...]] = {
    name: task.labels for name, task in TASKS.items() if task.labels
}
"""Labels of the classes, in the order of the networks that are trained here."""
NOT_CALIBRATED: dict[str, Factor] = {task.factor: 1.0 for task in TASKS.values()}

_T = TypeVar("_T")


@dataclass(frozen=True)
class NetworkFile:
    """The file of a network.

    Attributes:
        file: its name in the folder of the card.
        sha256: digest of its bytes, hexadecimal.
    """

    file: str
    sha256: str


@dataclass(frozen=True)
class InferenceGraph(NetworkFile):
    """The file of all networks together, for ONNX Runtime.

    Attributes:
        opset: version of ONNX's operators.
        answers: of the networks to `lib.models.check_crops.check_crops`, by task.
    """

    opset: int
    answers: Mapping[str, tuple[float, ...]]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InferenceGraph":
        """Read plain values."""
        answers = {task: tuple(map(float, given)) for task, given in values["answers"].items()}
        return cls(**{**_known(cls, values), "answers": answers})


@dataclass(frozen=True)
class Training:
    """How a model was trained.

    Attributes:
        source: the data set.
        terms: under which its publishers give it.
        data_sha256: digest of the faces of each split.
        faces: number of faces of each split.
        backbone: name in `lib.models.backbones.registry.BACKBONES`.
        weights: name of the file that the backbone started from; None: random weights.
        weights_sha256: digest of that file.
        weights_training: how those weights were trained, where that is known.
        teachers: models whose answers were learnt, too.
        workers: processes that trained together.
        recipe: the fields of `lib.training.recipe.Recipe`.
        suspects_sha256: digest of the suspects that the recipe weights; None: of no audit.
    """

    source: str = "unknown"
    terms: str = "unknown"
    data_sha256: Mapping[str, str] = field(default_factory=dict)
    faces: Mapping[str, int] = field(default_factory=dict)
    backbone: str = "unknown"
    weights: str | None = None
    weights_sha256: str | None = None
    weights_training: "Training | None" = None
    teachers: "tuple[Teacher, ...]" = ()
    workers: int = 1
    recipe: Mapping[str, Any] = field(default_factory=dict)
    suspects_sha256: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Training":
        """Read plain values."""
        known = _known(cls, values)
        if known.get("weights_training"):
            known["weights_training"] = cls.from_dict(known["weights_training"])
        known["teachers"] = tuple(map(Teacher.from_dict, known.get("teachers", ())))
        return cls(**known)


@dataclass(frozen=True)
class Teacher:
    """A model whose answers another one learnt.

    Attributes:
        name: of the model.
        sha256: digest of its card.
        training: how it was trained, where that is known.
    """

    name: str
    sha256: str
    training: Training | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Teacher":
        """Read plain values."""
        known = _known(cls, values)
        if known.get("training"):
            known["training"] = Training.from_dict(known["training"])
        return cls(**known)


@dataclass(frozen=True)
class ModelCard:
    """All that is written about a model.

    Attributes:
        name: of the model, for people.
        crop: how faces are cut out.
        pixels: how crops become input.
        networks: file of each network: of the tasks and, where they share one, of `BACKBONE`.
        inference: their graph for labelling on CPUs, where there is one.
        class_labels: what the outputs of a task's network mean, in order, where classes are names.
        calibration: factors by name (`Task.factor`), fitted on validation data.
        under_age: calibration of the probability to be younger than an age; None: not calibrated.
        certainty: which faces are certain; None: nobody has found out.
        training: how it was trained, where that is known.
        code: version of the code that made it.
        validation: metrics of the epoch whose weights these are.
        metrics: by split, what `lib.evaluation.metrics.evaluate` returns.
        preprocessing: name in `lib.models.preprocessing`, of imported models.
        sources: file and digest that each network was imported from.
        calibration_data: faces that calibrated an imported model, in words.
    """

    name: str
    crop: CropSpec
    pixels: Pixels
    networks: Mapping[str, NetworkFile] = field(default_factory=dict)
    inference: InferenceGraph | None = None
    class_labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: CLASS_LABELS)
    calibration: Mapping[str, Factor] = field(default_factory=lambda: NOT_CALIBRATED)
    under_age: UnderAge | None = None
    certainty: Certainty | None = None
    training: Training | None = None
    code: str | None = None
    validation: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    preprocessing: str | None = None
    sources: Mapping[str, NetworkFile] | None = None
    calibration_data: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what is not known is left out."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        labels = values.pop("class_labels")
        return {"format": FORMAT, **values, **{f"{task}_labels": v for task, v in labels.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelCard":
        """Read plain values.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: they are not a card.
        """
        facts = {name: values[name] for name in _FACTS if values.get(name) is not None}
        if "training" in facts:
            facts["training"] = Training.from_dict(facts["training"])
        if "sources" in facts:
            facts["sources"] = _files(facts["sources"])
        if "inference" in facts:
            facts["inference"] = InferenceGraph.from_dict(facts["inference"])
        if "under_age" in facts:
            facts["under_age"] = UnderAge.from_dict(facts["under_age"])
        if "certainty" in facts:
            facts["certainty"] = Certainty.from_dict(facts["certainty"])
        calibration = {
            task.factor: task.read_factor(values["calibration"].get(task.factor, 1.0))
            for task in TASKS.values()
        }
        return cls(
            name=values["name"],
            crop=CropSpec.from_dict(values["crop"]),
            pixels=Pixels(**values["pixels"]),
            networks=_files(values["networks"]),
            class_labels={task: tuple(values[f"{task}_labels"]) for task in CLASS_LABELS},
            calibration=calibration,
            **facts,
        )


_FACTS = (
    "inference", "under_age", "certainty", "training", "code", "validation", "metrics",
    "preprocessing", "sources", "calibration_data",
)  # fmt: skip


def _files(values: Mapping[str, Any]) -> dict[str, NetworkFile]:
    return {name: NetworkFile(**_known(NetworkFile, value)) for name, value in values.items()}


def _known(cls: type[_T], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields of a dataclass."""
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    return {name: values[name] for name in names if name in values}
