"""A bundle: a folder with the networks of a model and the card that says how to use them."""

import fcntl
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from lib.common.errors import UserError, reason_of
from lib.faces.crop import CropSpec
from lib.storage.folder import Folder
from lib.storage.folder import folder as as_folder

CARD = "card.json"
DEFAULT_MODEL = Path(__file__).resolve().parents[2] / "models" / "default"
"""The embedded model."""
FORMAT = 1
Task = Literal["age", "gender"]
TASKS: tuple[Task, ...] = ("age", "gender")
Precision = Literal["float32", "bfloat16", "float16"]
"""What networks compute in; their weights stay float32."""


class Network(Protocol):
    """What can be saved as a `.keras` file; `keras.Model` is one."""

    def save(self, filepath: Path) -> None:
        """Write the network to a file."""


@dataclass(frozen=True)
class Pixels:
    """How uint8 RGB crops become a network's input: `(channels(crop) * scale - mean) / std`.

    Attributes:
        channels: "rgb" or "bgr", the order of the input.
        scale: factor on the pixels.
        mean: of all channels, or of each one in the order of the input.
        std: of all channels.
    """

    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1 / 255
    mean: float | tuple[float, float, float] = 0.5
    std: float = 0.25

    def __post_init__(self) -> None:
        if self.channels not in ("rgb", "bgr"):
            raise ValueError(f'channels are in the order "rgb" or "bgr", not {self.channels!r}')
        if not isinstance(self.mean, int | float):
            # A card has a list of them, and what travels to workers must not change.
            object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
            if len(self.mean) != 3:
                raise ValueError(f"a mean is one number or three, not {self.mean}")


@dataclass(frozen=True)
class Calibration:
    """What was fitted on validation data; the neutral values leave a network's output as it is.

    Attributes:
        age_interval_scale: factor on the distance of an age interval's ends from the expected age.
        gender_temperature: divisor of the logits of gender.
    """

    age_interval_scale: float = 1.0
    gender_temperature: float = 1.0


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose card has been read and whose files are the card's.

    Attributes:
        folder: where its files are on this machine.
        origin: where it was read from, for other machines.
        name: of the model, for people.
        digest: sha256 of the card, which holds the digests of all files: the model's identity.
        trunk: file of the network (crops → features) that both heads stand on; None where each task
            has a network of its own, from crops to probabilities.
        networks: file of the network for each task that the model knows, one or both of `TASKS`:
            features or crops → probabilities.
        crop: how faces are cut out.
        pixels: how crops become input.
        gender_labels: what the outputs of the gender network mean, in order.
        calibration: see there.
        card: all that the card says.
    """

    folder: Path
    origin: Folder
    name: str
    digest: str
    trunk: Path | None
    networks: Mapping[str, Path]
    crop: CropSpec
    pixels: Pixels
    gender_labels: tuple[str, ...]
    calibration: Calibration
    card: Mapping[str, Any]

    def here(self) -> "Bundle":
        """The same on the machine that asks, which gets a copy of a bundle in object storage.

        Raises:
            UserError: it is not there any more, or it has changed.
        """
        found = read_bundle(self.origin)
        if found.digest != self.digest:
            raise UserError(f"the model at {str(self.origin)!r} was replaced; start again")
        return found

    @property
    def weight_bytes(self) -> int:
        """Size of the networks' files."""
        files = [*self.networks.values(), *([self.trunk] if self.trunk else [])]
        return sum(file.stat().st_size for file in files)


def write_bundle(
    folder: Path,
    name: str,
    networks: Mapping[str, Network],
    crop: CropSpec,
    pixels: Pixels,
    gender_labels: tuple[str, ...],
    calibration: Calibration,
    facts: Mapping[str, Any],
) -> Bundle:
    """Save networks and a card that describes them; the card comes last, so half a bundle is none.

    Args:
        folder: made if it does not exist.
        name: of the model, for people.
        networks: by name: "age", "gender" or both, and "trunk" where they stand on one.
        crop: how faces are to be cut out.
        pixels: how crops become input.
        gender_labels: what the outputs of "gender" mean, in order.
        calibration: fitted on validation data.
        facts: what else a reader should know: training data, metrics, terms; JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for network, model in networks.items():
        file = f"{network}.keras"
        model.save(folder / file)
        files[network] = {"file": file, "sha256": _sha256(folder / file)}
    card = {
        "format": FORMAT,
        "name": name,
        "networks": files,
        "crop": crop.to_dict(),
        "pixels": vars(pixels),
        "gender_labels": list(gender_labels),
        "calibration": vars(calibration),
        **facts,
    }
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return read_bundle(folder)


def read_bundle(where: str | Path | Folder) -> Bundle:
    """Read and check the card, and check every file against it, without loading a network.

    Args:
        where: the folder. One in object storage is copied to this machine, once.

    Raises:
        UserError: there is no card, it is not one, or a file is missing or not the card's.
    """
    origin = as_folder(where)
    try:
        text = (Path(origin.uri) / CARD).read_bytes() if origin.is_local else origin.read(CARD)
    except OSError as error:
        raise UserError(
            f"no model at {str(origin)!r}: cannot read {CARD} ({reason_of(error)}); "
            "give a bundle folder, such as models/default"
        ) from None
    path = f"{origin}/{CARD}"
    try:
        card = json.loads(text)
        if card["format"] != FORMAT:
            raise UserError(f"{path} has the format {card['format']}; this version reads {FORMAT}")
        names = {entry["file"]: entry["sha256"] for entry in card["networks"].values()}
        folder = Path(origin.uri) if origin.is_local else _copied(origin, text, names)
        files = {
            name: _checked(folder / entry["file"], entry["sha256"])
            for name, entry in card["networks"].items()
        }
        networks: dict[str, Path] = {task: files[task] for task in TASKS if task in files}
        if not networks:
            raise UserError(f"{path} names no network for any of {', '.join(TASKS)}")
        return Bundle(
            folder=folder,
            origin=origin,
            name=card["name"],
            digest=hashlib.sha256(text).hexdigest(),
            trunk=files.get("trunk"),
            networks=networks,
            crop=CropSpec.from_dict(card["crop"]),
            pixels=Pixels(**card["pixels"]),
            gender_labels=tuple(card["gender_labels"]),
            calibration=Calibration(**card["calibration"]),
            card=card,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a model card: {type(error).__name__}: {error}") from None


def _copied(origin: Folder, card: bytes, names: Mapping[str, str]) -> Path:
    """Copy a bundle to this machine, unless it has a good copy. Gives the folder of the copy."""
    if any(name != os.path.basename(name) for name in names):  # noqa: PTH119 - a name, not a path
        raise ValueError("the file of a network is not in the folder of the card")
    cache = Path(tempfile.gettempdir(), f"models-{os.getuid()}")
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / hashlib.sha256(card).hexdigest()[:16]
    with (cache / "lock").open("w") as lock:  # all workers of a machine begin together
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            for name, sha256 in names.items():
                if not (folder / name).is_file() or _sha256(folder / name) != sha256:
                    folder.mkdir(exist_ok=True)
                    (folder / name).write_bytes(origin.read(name))
        except OSError as error:
            raise UserError(f"cannot copy the model {str(origin)!r}: {reason_of(error)}") from None
    return folder


def _checked(file: Path, sha256: str) -> Path:
    """A digest from the card proves that the file is whole; nothing else is read before it."""
    if not file.is_file():
        raise UserError(f"the model's file {str(file)!r} is missing; copy the bundle again")
    if _sha256(file) != sha256 or not zipfile.is_zipfile(file):
        raise UserError(f"the model's file {str(file)!r} is damaged or was changed; copy it again")
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
