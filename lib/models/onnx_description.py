"""A JSON file that says how foreign ONNX classifiers of age and gender are used.

{
  "name": "some-model",
  "source": "https://example.org/some-model", "terms": "CC0-1.0",
  "crop": {"size": 64, "align": "landmarks"},
  "networks": {
    "age": {"file": "age.onnx", "pixels": {"scale": 0.00390625, "mean": 0.45, "std": 1}},
    "gender": {"file": "gender.onnx", "pixels": {}, "classes": ["female", "male"], "softmax": true}
  }
}
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.common.errors import UserError, reason_of
from lib.network_input import CropSpec, Pixels
from lib.tasks import TASKS
from lib.tasks.age import AGE

_YEARS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class NetworkDescription:
    """How one network is used.

    Attributes:
        file: beside the description.
        pixels: how RGB crops become its input, as in `lib.network_input.Pixels`.
        classes: what its outputs mean, in order: labels of the task, or for the age years such as "7" or
            "8-12"; of a single output, the class whose probability it is. None: years from 0 on, and
            the task's own labels.
        output: name of the output; None: there is one.
        softmax: whether the outputs are not probabilities yet.
    """

    file: str
    pixels: Pixels
    classes: tuple[str, ...] | None = None
    output: str | None = None
    softmax: bool = False

    def matrix(self, task: str, outputs: int) -> NDArray[np.float32]:
        """From outputs to classes of the task, float32 (outputs, classes); rows sum to 1.

        A band spreads its probability evenly over its years.

        Raises:
            ValueError: the classes are not those of the task, or not as many as outputs.
        """
        known = TASKS[task]
        if self.classes is None:
            names = tuple(map(str, range(outputs))) if task == AGE.name else known.labels
        else:
            names = self.classes
        if outputs == 1 and len(names) == 1 and task != AGE.name:
            names = (*(label for label in known.labels if label != names[0]), names[0])
            outputs = len(names)
        if len(names) != outputs:
            raise ValueError(f"{outputs} outputs, and {len(names)} classes")
        rows = [_row(name, task) for name in names]
        return np.stack(rows).astype(np.float32)


def _row(name: str, task: str) -> NDArray[np.float64]:
    """The classes of a task that an output stands for, with their shares."""
    row = np.zeros(TASKS[task].classes)
    if task != AGE.name:
        if name not in TASKS[task].labels:
            raise ValueError(f"{name!r} is none of {', '.join(TASKS[task].labels)}")
        row[TASKS[task].labels.index(name)] = 1
        return row
    years = _YEARS.fullmatch(name)
    first, last = (int(years[1]), int(years[2] or years[1])) if years else (1, 0)
    if not first <= last < len(row):
        raise ValueError(f'{name!r} is no age of 0 to {len(row) - 1}, such as "7" or "8-12"')
    row[first : last + 1] = 1 / (last + 1 - first)
    return row


@dataclass(frozen=True)
class OnnxDescription:
    """A model of one network for each task that it knows.

    Attributes:
        folder: where the files are.
        name: of the model, in every label row.
        crop: how faces are cut out; networks that take other sizes get the crops resized.
        networks: by task.
        source: where the model comes from.
        terms: under which it is given.
    """

    folder: Path
    name: str
    crop: CropSpec
    networks: Mapping[str, NetworkDescription]
    source: str
    terms: str


def read_description(file: Path) -> OnnxDescription:
    """Read the JSON file.

    Raises:
        UserError: it cannot be read, or a value in it is missing, unknown or impossible.
    """
    try:
        values = json.loads(file.read_text("utf-8"))
        networks = {task: _network(task, of) for task, of in values.pop("networks").items()}
        if not networks:
            raise ValueError(f"it has no network for any of {', '.join(TASKS)}")
        crop = CropSpec.from_dict(values.pop("crop"))
        return OnnxDescription(folder=file.parent, crop=crop, networks=networks, **values)
    except OSError as error:
        raise UserError(f"cannot read --onnx {str(file)!r}: {reason_of(error)}") from None
    except KeyError as error:
        raise UserError(f"--onnx {str(file)!r} lacks {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        reason = re.sub(r"^\w+\.__init__\(\) ", "", str(error))
        raise UserError(f"--onnx {str(file)!r} is no description of a model: {reason}") from None


def _network(task: str, values: Mapping[str, Any]) -> NetworkDescription:
    if task not in TASKS:
        raise ValueError(f"{task!r} is none of {', '.join(TASKS)}")
    if unknown := set(values) - {field.name for field in fields(NetworkDescription)}:
        raise ValueError(f"{task} has {sorted(unknown)[0]!r}, which nothing here reads")
    if Path(values["file"]).name != values["file"]:
        raise ValueError(f"the file of {task} must be a name beside it, not {values['file']!r}")
    classes = values.get("classes")
    return NetworkDescription(
        **{
            **values,
            "pixels": Pixels(**values["pixels"]),
            "classes": None if classes is None else tuple(map(str, classes)),
        }
    )
