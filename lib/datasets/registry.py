"""The data sets of jobs.prepare. A new one is a file like `utkface.py` and a line in `DatasetOptions`."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from lib.common.errors import UserError
from lib.datasets.adience import Adience
from lib.datasets.agedb import AgeDb
from lib.datasets.appa_real import AppaReal
from lib.datasets.dataset import Dataset
from lib.datasets.fairface import FairFace
from lib.datasets.imdb_clean import ImdbClean
from lib.datasets.imdb_wiki import ImdbWiki
from lib.datasets.lagenda import Lagenda
from lib.datasets.table import UserTable
from lib.datasets.utkface import UtkFace
from lib.output import run_record
from lib.storage.folder import Folder

_Unprefixed = tyro.conf.arg(name="")


@dataclass(frozen=True)
class DatasetOptions:
    """Each data set with its options."""

    imdb_wiki: Annotated[ImdbWiki, _Unprefixed] = field(default_factory=ImdbWiki)
    utkface: Annotated[UtkFace, _Unprefixed] = field(default_factory=UtkFace)
    fairface: Annotated[FairFace, _Unprefixed] = field(default_factory=FairFace)
    adience: Annotated[Adience, _Unprefixed] = field(default_factory=Adience)
    agedb: Annotated[AgeDb, _Unprefixed] = field(default_factory=AgeDb)
    appa_real: Annotated[AppaReal, _Unprefixed] = field(default_factory=AppaReal)
    lagenda: Annotated[Lagenda, _Unprefixed] = field(default_factory=Lagenda)
    imdb_clean: Annotated[ImdbClean, _Unprefixed] = field(default_factory=ImdbClean)
    table: Annotated[UserTable, _Unprefixed] = field(default_factory=UserTable)

    def by_name(self) -> dict[str, Dataset]:
        """The data sets by the name that --source takes."""
        return {dataset.name: dataset for dataset in vars(self).values()}

    def chosen(self, name: str) -> Dataset:
        """The data set of that name, its options checked.

        Raises:
            UserError: there is no such data set, its file is missing, or a file of another is given.
        """
        datasets = self.by_name()
        if name not in datasets:
            raise UserError(f"--source cannot be {name!r}; choose from {', '.join(datasets)}")
        for dataset in datasets.values():
            if dataset.files and dataset.name != name:
                raise UserError(
                    f"{_option(dataset)} is for --source {dataset.name}, not for {name}"
                )
        chosen = datasets[name]
        if chosen.file_option and not chosen.files:
            raise UserError(f"--source {name} needs {_option(chosen)}")
        return chosen


def _option(dataset: Dataset) -> str:
    """The option with the files of labels."""
    return f"--{(dataset.file_option or '').replace('_', '-')}"


DATASETS = DatasetOptions().by_name()
SOURCE_HELP = (
    f"What the labels are. {' '.join(f'{d.name}: {d.labels}.' for d in DATASETS.values())}"
)


def source_of(faces: Folder) -> str:
    """Title of the data set that a folder faces/ of jobs.prepare was made from."""
    dataset = _prepared_from(faces)
    return dataset.title if dataset else "unknown; not from jobs.prepare"


def terms_of(faces: Folder) -> str:
    """What the publishers of that data set allow, which holds for a model of it, too."""
    dataset = _prepared_from(faces)
    return dataset.terms if dataset else "unknown; whoever knows the data must say"


def _prepared_from(faces: Folder) -> Dataset | None:
    try:
        return DATASETS.get(run_record.read(faces.parent).fingerprint.get("source", ""))
    except (OSError, UserError):
        return None
