"""A state of training in a folder: arrays without pickle, and a few facts as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAYS, FACTS = "state.npz", "state.json"


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: that is going on, from 0.
        step: steps of it that are done.
        losses: of these steps; of the faces of all workers in a checkpoint, of one worker's else.
        history: metrics of the epochs that are over.
    """

    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def write_checkpoint(
    folder: Path, arrays: Mapping[str, Sequence[NDArray[Any]]], position: Position
) -> None:
    """Write a state.

    Args:
        folder: that exists.
        arrays: lists by name.
        position: where the run is.
    """
    flat = {f"{name}/{i}": a for name, group in arrays.items() for i, a in enumerate(group)}
    np.savez(folder / ARRAYS, **flat)  # type: ignore[arg-type]
    (folder / FACTS).write_text(json.dumps(vars(position)) + "\n", "utf-8")


def read_checkpoint(folder: Path) -> tuple[dict[str, list[NDArray[Any]]], Position]:
    """Read what `write_checkpoint` wrote."""
    arrays: dict[str, list[NDArray[Any]]] = {}
    with np.load(folder / ARRAYS, allow_pickle=False) as flat:
        for key in sorted(flat, key=lambda key: int(key.rpartition("/")[2])):
            arrays.setdefault(key.rpartition("/")[0], []).append(flat[key])
    return arrays, Position(**json.loads((folder / FACTS).read_text("utf-8")))
