"""`run.json`: the job and the options that made an output, so that no two runs mix in one folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lib.archive.run_outputs import RECORD as FILE
from lib.common.errors import UserError, reason_of
from lib.storage.folder import Folder
from lib.storage.folder import folder as as_folder
from lib.storage.options import StorageOptions

OWNED = ("labels", "manifest", "checkpoint")


@dataclass(frozen=True)
class RunRecord:
    """Contents of `run.json`.

    Attributes:
        job: module of the job, such as `jobs.score`.
        fingerprint: all options that change the result, as JSON values.
        storage: how the run reads and writes files; it holds no credentials.
        model: card of the model that labels; empty for other jobs.
    """

    job: str
    fingerprint: Mapping[str, Any]
    storage: StorageOptions = field(default_factory=StorageOptions)
    model: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Folder) -> None:
        """Write `run.json`.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        folder.write(FILE, f"{text}\n".encode())


def read(folder: Folder) -> RunRecord:
    """Read `run.json`.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        UserError: it is damaged.
    """
    try:
        found = json.loads(folder.read(FILE))
        return RunRecord(**{**found, "storage": StorageOptions.from_dict(found["storage"])})
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{f'{folder}/{FILE}'!r} is damaged; give another --output") from None


def claim(output: Path | Folder, record: RunRecord, owned: Sequence[str] = OWNED) -> None:
    """Write the record into an output, or check that the output belongs to the same run.

    The storage options are not compared: a run may continue with others, which are then recorded.

    Args:
        output: folder of the run; created if it does not exist.
        record: of the run.
        owned: folders that only a run with a record can have made.

    Raises:
        UserError: the output belongs to another run, was made by something else, or cannot be written.
    """
    folder = as_folder(output)
    fingerprint = json.loads(
        json.dumps(record.fingerprint)
    )  # as it is read back: tuples become lists
    record = replace(record, fingerprint=fingerprint)
    try:
        recorded = _recorded(folder, owned)
        if recorded is not None:
            _compare(recorded, record, str(output))
        if recorded is None or recorded.storage != record.storage:
            record.write(folder)
    except OSError as error:
        raise UserError(f"cannot write to --output {str(output)!r}: {reason_of(error)}") from None


def run_id(output: object, fingerprint: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits for logs and metrics; the same at every start of a run."""
    text = json.dumps([str(output), fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _recorded(folder: Folder, owned: Sequence[str]) -> RunRecord | None:
    if folder.holds(FILE):
        return read(folder)
    if foreign := [name for name in owned if folder.holds(name)]:
        raise UserError(
            f"{str(folder)!r} holds {', '.join(foreign)} but no {FILE}, so what made them is unknown; "
            "give another --output"
        )
    return None


def _compare(recorded: RunRecord, record: RunRecord, output: str) -> None:
    if recorded.job != record.job:
        raise UserError(f"{output!r} is an output of {recorded.job}; give another --output")
    before, now = recorded.fingerprint, record.fingerprint
    differences = "; ".join(
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    )
    if differences:
        raise UserError(
            f"{output!r} belongs to another run: {differences}; use the options of that run to go on "
            "with it, or give another --output"
        )
