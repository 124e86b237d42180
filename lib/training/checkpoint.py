"""A state of training in a folder: arrays without pickle, and a few facts as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.common.errors import UserError

ARRAYS, FACTS = "state.npz", "state.json"
VERSION = 2
"""Of the arrays; those of another one are refused."""


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: that is going on, from 0.
        step: steps of it that are done.
        losses: of these steps; of the faces of all workers in a checkpoint, of one worker's else. The
            last one may be a tensor that is still being computed.
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
    (folder / FACTS).write_text(
        json.dumps({"version": VERSION, **vars(position)}, default=float) + "\n", "utf-8"
    )


def read_checkpoint(folder: Path) -> tuple[dict[str, list[NDArray[Any]]], Position]:
    """Read what `write_checkpoint` wrote.

    Raises:
        UserError: an earlier version did.
    """
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    if facts.pop("version", 1) != VERSION:
        raise UserError(
            "the checkpoint is of another version of this program; train in another --output"
        )
    arrays: dict[str, list[NDArray[Any]]] = {}
    with np.load(folder / ARRAYS, allow_pickle=False) as flat:
        for key in sorted(flat, key=lambda key: int(key.rpartition("/")[2])):
            arrays.setdefault(key.rpartition("/")[0], []).append(flat[key])
    return arrays, Position(**facts)
