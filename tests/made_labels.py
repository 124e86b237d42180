"""Outputs of a labelling that never ran: any rows for any images, laid out as jobs/score.py does."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.archive.archive import Archive, Reading
from lib.archive.manifest import write_manifest
from lib.output.run_record import RunRecord, claim
from lib.scoring.schema import label_schema
from lib.storage.folder import folder as as_folder
from lib.storage.options import StorageOptions
from lib.storage.uris import local_path, scheme_of

CARD = json.loads(Path(__file__).parents[1].joinpath("models/default/card.json").read_text("utf-8"))
"""Of the embedded model."""


def face(
    age: float = 48.2,
    gender: str = "male",
    gender_score: float = 0.98,
    box: tuple[int, int, int, int] = (10, 10, 20, 20),
    age_std: float = 6.1,
    face_score: float | None = 0.99,
    **doubts: Any,
) -> dict[str, Any]:
    """What a label row says of a face; `doubts` are columns of quality, and `p_under_18`."""
    return {
        "age": age,
        "age_std": age_std,
        "age_low": age - 8,
        "age_high": age + 8,
        "gender": gender,
        "gender_score": gender_score,
        "box": dict(zip(("x", "y", "width", "height"), box, strict=True)),
        "face_score": face_score,
        **doubts,
    }


def row(
    id_: int,
    uri: str,
    faces: Sequence[Mapping[str, Any]] = (),
    status: str | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """A label row; of an image of 64 × 48 pixels unless it is an error."""
    size = {} if error else {"width": 64, "height": 48}
    main = faces[0] if faces else {}
    return {
        **dict.fromkeys(label_schema().names),
        "id": id_,
        "uri": uri,
        "status": status or ("ok" if faces else "no_face"),
        "error": error,
        "face_count": len(faces),
        "faces": list(faces),
        "model": "tiny@1",
        **size,
        **main,
    }


def make_output(
    folder: Path,
    images: Path | str,
    labels: Mapping[str, Mapping[str, Any]],
    files: int = 1,
    storage: StorageOptions | None = None,
) -> Path:
    """List the images and give each a row.

    Args:
        folder: of the output.
        images: folder of the images, or URI.
        labels: by the path of the image within `images`: faces, status and error of its `row`.
        files: of label rows.
        storage: options of the run.
    """
    storage = storage or StorageOptions()
    fingerprint = {"images": [str(images)], "limit": None, "model": "tiny@1", "detector": "mtcnn"}
    claim(folder, RunRecord("jobs.score", fingerprint, storage, CARD))
    listed = as_folder(folder) / "manifest"
    parts = write_manifest(Archive([str(images)], reading=Reading(storage=storage)), listed).parts
    manifest = [entry for part in parts for entry in listed.read_table(part).to_pylist()]
    rows = []
    for entry in manifest:
        uri = entry["uri"]
        path = uri if scheme_of(uri) else str(local_path(uri))
        if (name := path.removeprefix(f"{images}/")) in labels:
            rows.append(row(entry["id"], uri, **labels[name]))
    write_rows(folder, rows, files)
    return folder


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]], files: int = 1) -> None:
    """Write label files."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        table = pa.Table.from_pylist(list(rows[number::files]), schema=label_schema())
        pq.write_table(table, folder / "labels" / f"part{number:06}-0.parquet")
