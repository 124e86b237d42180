"""`run.json`: what an output was made from, so that nobody mixes two runs in one folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.common.errors import UserError
from lib.storage.folder import Folder
from lib.storage.folder import folder as as_folder

FILE = "run.json"
OWNED = ("labels", "manifest", "checkpoint")


def claim(
    output: Path | Folder,
    fingerprint: Mapping[str, Any],
    facts: Mapping[str, Any],
    owned: Sequence[str] = OWNED,
) -> None:
    """Record a run in its output, or check that the record there is of the same run.

    Args:
        output: the folder of the run; made if it does not exist.
        fingerprint: all that changes a label or which images there are; JSON.
        facts: what else people may want to know; JSON, written once and never compared.
        owned: folders that only a run with a record can have made.

    Raises:
        UserError: the output belongs to another run, to something else, or cannot be written.
    """
    folder = as_folder(output)
    fingerprint = json.loads(json.dumps(fingerprint))  # as it is read back: tuples become lists
    try:
        if folder.holds(FILE):
            _compare(folder, str(output), fingerprint)
            return
        foreign = [name for name in owned if folder.holds(name)]
        if foreign:
            raise UserError(
                f"{str(output)!r} holds {', '.join(foreign)} but no {FILE}, so what made them is "
                "unknown; give another --output"
            )
        text = json.dumps({"fingerprint": fingerprint, **facts}, indent=2, ensure_ascii=False)
        folder.write(FILE, f"{text}\n".encode())
    except OSError as error:
        raise UserError(f"cannot write to --output {str(output)!r}: {error.strerror}") from None


def run_id(output: object, fingerprint: Mapping[str, Any]) -> str:
    """Eight digits that stay the same however often a run is started again, for logs and metrics."""
    text = json.dumps([str(output), fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _compare(folder: Folder, output: str, fingerprint: Mapping[str, Any]) -> None:
    try:
        recorded = json.loads(folder.read(FILE))["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{output + '/' + FILE!r} is damaged; give another --output") from None
    names = [n for n in {**recorded, **fingerprint} if recorded.get(n) != fingerprint.get(n)]
    if names:
        differences = "; ".join(
            f"{name} was {recorded.get(name)!r}, now {fingerprint.get(name)!r}" for name in names
        )
        raise UserError(
            f"{output!r} belongs to another run: {differences}; use the options of that "
            "run to go on with it, or give another --output"
        )
