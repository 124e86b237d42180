"""A bundle: a folder with the networks of a model and the card that says how to use them."""

import fcntl
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from lib.common.errors import UserError, reason_of
from lib.models.model_card import BACKBONE, FORMAT, ModelCard, NetworkFile
from lib.network_input import CropSpec, Pixels
from lib.storage.folder import Folder
from lib.storage.folder import folder as as_folder
from lib.storage.options import StorageOptions
from lib.tasks import TASKS

CARD = "card.json"
DEFAULT_MODEL = Path(__file__).resolve().parents[2] / "models" / "default"
"""The embedded model."""
Precision = Literal["float32", "bfloat16", "float16"]
"""What networks compute in; their weights stay float32."""
PrecisionChoice = Literal["auto", Precision]
"""The same; "auto": float32 on CPUs, half precision on GPUs where the ages stay close to float32's."""


class Network(Protocol):
    """What can be saved as a `.keras` file; `keras.Model` is one."""

    def save(self, filepath: Path) -> None:
        """Write the network to a file."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose card has been read and whose files have the digests of the card.

    Attributes:
        folder: where its files are on this machine.
        origin: where it was read from, for other machines.
        digest: sha256 of the card, which holds the digests of all files: the model's identity.
        backbone: file of the network (crops → features) that all tasks share; None where each task has
            a network of its own, from crops to probabilities.
        networks: file of the Keras network for each task: features or crops → probabilities. None of an
            imported ONNX model.
        inference: file of the graph that ONNX Runtime computes; None: there is none. There is that or
            `networks`.
        card: all that is known of the model.
    """

    folder: Path
    origin: Folder
    digest: str
    backbone: Path | None
    networks: Mapping[str, Path]
    inference: Path | None
    card: ModelCard

    @property
    def name(self) -> str:
        """Of the model, for people."""
        return self.card.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """That the model knows, at least one, in the order of `TASKS`."""
        graph = self.card.inference
        known = self.networks or (graph.answers if graph else {})
        return tuple(task for task in TASKS if task in known)

    @property
    def is_one_network(self) -> bool:
        """Whether all tasks are computed together."""
        return self.backbone is not None or not self.networks

    def check_precision(self, precision: PrecisionChoice) -> None:
        """Refuse what its networks cannot compute in.

        Raises:
            UserError: names the model and the precision.
        """
        if not self.networks and precision not in ("auto", "float32"):
            raise UserError(
                f"the model {self.name!r} is an ONNX graph, which is computed in float32, not in "
                f"{precision}; leave the precision out"
            )

    @property
    def crop(self) -> CropSpec:
        """How faces are cut out."""
        return self.card.crop

    @property
    def pixels(self) -> Pixels:
        """How crops become input."""
        return self.card.pixels

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
        files = [*self.networks.values(), *([self.backbone] if self.backbone else [])]
        files = files or [file for file in [self.inference] if file]
        return sum(file.stat().st_size for file in files)


def write_bundle(folder: Path, networks: Mapping[str, Network], card: ModelCard) -> Bundle:
    """Save networks and a card that describes them; the card comes last, so half a bundle is none.

    Args:
        folder: made if it does not exist.
        networks: by name: of tasks and, where they share one, of `BACKBONE`.
        card: all that it says but `networks`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for network, model in networks.items():
        file = f"{network}.keras"
        model.save(folder / file)
        files[network] = NetworkFile(file, sha256_of(folder / file))
    return write_card(folder, replace(card, networks=files))


def write_card(folder: Path, card: ModelCard) -> Bundle:
    """Write the card of networks that are in the folder."""
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", "utf-8")
    return read_bundle(folder)


def read_bundle(where: str | Path | Folder, options: StorageOptions | None = None) -> Bundle:
    """Read and check the card, and check every file against it, without loading a network.

    Args:
        where: the folder. One in object storage is copied to this machine, once.
        options: for S3, where `where` is no `Folder`; None: those of this machine's environment.

    Raises:
        UserError: there is no card, it is not one, or a file is missing or not the card's.
    """
    origin = as_folder(where, options)
    try:
        text = (Path(origin.uri) / CARD).read_bytes() if origin.is_local else origin.read(CARD)
    except OSError as error:
        raise UserError(
            f"no model at {str(origin)!r}: cannot read {CARD} ({reason_of(error)}); "
            "give a bundle folder, such as models/default"
        ) from None
    path = f"{origin}/{CARD}"
    try:
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise UserError(
                f"{path} has the format {values['format']}; this version reads {FORMAT}"
            )
        card = ModelCard.from_dict(values)
        graph = card.inference
        names = {
            file.file: file.sha256
            for file in [*card.networks.values(), *([graph] if graph else [])]
        }
        folder = Path(origin.uri) if origin.is_local else _copied(origin, text, names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a model card: {type(error).__name__}: {error}") from None
    files = {
        name: _checked(folder / network.file, network.sha256)
        for name, network in card.networks.items()
    }
    networks = {task: files[task] for task in TASKS if task in files}
    if not networks and (graph is None or not set(graph.answers) & set(TASKS)):
        raise UserError(f"{path} names no network for any of {', '.join(TASKS)}")
    return Bundle(
        folder=folder,
        origin=origin,
        digest=hashlib.sha256(text).hexdigest(),
        backbone=files.get(BACKBONE),
        networks=networks,
        inference=_checked(folder / graph.file, graph.sha256) if graph else None,
        card=card,
    )


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
                if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
                    folder.mkdir(exist_ok=True)
                    (folder / name).write_bytes(origin.read(name))
        except OSError as error:
            raise UserError(f"cannot copy the model {str(origin)!r}: {reason_of(error)}") from None
    return folder


def _checked(file: Path, sha256: str) -> Path:
    """A digest from the card proves that the file is whole; nothing else is read before it."""
    if not file.is_file():
        raise UserError(f"the model's file {str(file)!r} is missing; copy the bundle again")
    if sha256_of(file) != sha256 or (file.suffix == ".keras" and not zipfile.is_zipfile(file)):
        raise UserError(f"the model's file {str(file)!r} is damaged or was changed; copy it again")
    return file


def sha256_of(file: Path) -> str:
    """The digest of a file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
