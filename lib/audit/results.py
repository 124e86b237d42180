"""What an audit leaves behind: suspects.parquet, ranked tables, summary.json."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.audit.faces import AuditedFaces, FaceLabels
from lib.audit.opinions import Opinions
from lib.audit.suspicion import KINDS, MEANINGS, Suspicion
from lib.datasets.labels import AGE_BAND, with_age_band
from lib.datasets.suspects import FILE, SUSPECT_SCHEMA
from lib.storage.folder import Folder
from lib.tasks.gender import FEMALE, MALE

RANKED, SUMMARY = "ranked", "summary.json"
MOST_RANKED = 1000
"""Faces of a kind that its table lists; suspects.parquet has all."""
_KEY = ("source", "source_row", "sha256", "gender", "age", *AGE_BAND.names)
_SAID = ("age", "age_std", "age_low", "age_high", "female")
_TABLE = (
    "rank", "suspicion", "split", "source", "source_row", "age", "gender", "predicted_age",
    "predicted_age_low", "predicted_age_high", "predicted_gender", "predicted_gender_score", "kinds",
)  # fmt: skip


@dataclass(frozen=True)
class Audit:
    """All that is known when every face has been judged.

    Attributes:
        faces: that were audited.
        labels: of them.
        opinions: of the models.
        suspicion: of the labels.
        models: names and digests of the models.
        folds: how many there were; 0: the user named the models.
    """

    faces: AuditedFaces
    labels: FaceLabels
    opinions: Opinions
    suspicion: Suspicion
    models: Sequence[str]
    folds: int

    @property
    def how(self) -> str:
        """Where the opinions come from, in a sentence."""
        if self.folds:
            return (
                f"Each face was judged by one of {self.folds} models, which had not seen its label: the "
                "model of a fold learnt from the others."
            )
        return (
            "The models were named by the user. They must not have learnt from these labels: a model "
            "repeats the faults that it has learnt, and the audit does not find them."
        )

    def counts(self) -> dict[str, int]:
        """Faces by kind."""
        return {kind: int(of.sum()) for kind, of in self.suspicion.kinds.items()}

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Faces of which no model says anything, (n,)."""
        return np.isnan(self.opinions.mean("age")) & np.isnan(self.opinions.mean("female"))


Row = dict[str, Any]


def write_results(audit: Audit, output: Folder) -> dict[str, list[Row]]:
    """Write all but the page, over what is there.

    Returns:
        The most suspect faces of each kind: rows of `SUSPECT_SCHEMA` with their `place`, in order.

    Raises:
        OSError: the folder cannot be written to.
    """
    ranked = {kind: audit.suspicion.most_suspect(kind, MOST_RANKED) for kind in KINDS}
    rows = _write_suspects(audit, output, set(np.concatenate(list(ranked.values())).tolist()))
    listed = {kind: [rows[place] for place in places.tolist()] for kind, places in ranked.items()}
    for kind, of_kind in listed.items():
        (output / RANKED).write(f"{kind}.csv", _table(of_kind))
    output.write(SUMMARY, f"{json.dumps(_summary(audit), indent=2)}\n".encode())
    return listed


def in_words(audit: Audit) -> str:
    """The result as text for a terminal."""
    suspect, faces = int(audit.suspicion.suspect.sum()), len(audit.labels)
    counts = audit.counts()
    width = max(map(len, counts))
    lines = [f"{kind:<{width}} {count:>9,}  {MEANINGS[kind]}" for kind, count in counts.items()]
    return "\n".join([f"{suspect:,} of {faces:,} faces are suspect", *lines, audit.how])


def _summary(audit: Audit) -> dict[str, Any]:
    bounds = zip((FEMALE, MALE), audit.suspicion.gender_bounds, strict=True)
    return {
        "faces": len(audit.labels),
        "suspect": int(audit.suspicion.suspect.sum()),
        "kinds": audit.counts(),
        "without_opinion": int(audit.silent.sum()),
        "gender_bounds": {name: None if np.isnan(of) else of for name, of in bounds},
        "models": list(audit.models),
        "folds": audit.folds,
        "how": audit.how,
    }


def _write_suspects(audit: Audit, output: Folder, wanted: set[int]) -> dict[int, Row]:
    """Write a row for each face, in their order, few at a time; gives the rows at some places."""
    kept: dict[int, Row] = {}
    start = 0
    with output.new_file(FILE) as file, pq.ParquetWriter(file, SUSPECT_SCHEMA) as writer:
        for split, of_faces in audit.faces.batches(_KEY):
            places = np.arange(start, start + len(of_faces))
            rows = _rows(audit, split, of_faces, places)
            writer.write_table(rows)
            here = [place for place in places.tolist() if place in wanted]
            chosen = rows.take(pa.array([place - start for place in here], pa.int64()))
            for place, row in zip(here, chosen.to_pylist(), strict=True):
                kept[place] = {**row, "place": place}
            start += len(of_faces)
    return kept


def _rows(audit: Audit, split: str, faces: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """Rows of `SUSPECT_SCHEMA` of the faces at some places."""
    faces = with_age_band(faces)
    said = {name: audit.opinions.mean(name, places) for name in _SAID}
    female, found = said.pop("female"), audit.opinions.faces_found[places]
    kinds = np.stack([kind[places] for kind in audit.suspicion.kinds.values()], axis=1)
    names = np.array(KINDS)
    gender = np.where(female >= 0.5, FEMALE, MALE)
    columns = dict(zip(faces.column_names, faces.columns, strict=True)) | {
        "split": [split] * len(faces),
        "rank": audit.suspicion.rank[places],
        "suspicion": audit.suspicion.probability[places],
        "suspect": kinds.any(axis=1),
        "kinds": [names[row].tolist() for row in kinds],
        **{f"predicted_{name}": pa.array(of, from_pandas=True) for name, of in said.items()},
        "predicted_gender": pa.array(gender, mask=np.isnan(female)),
        "predicted_gender_score": pa.array(np.maximum(female, 1 - female), from_pandas=True),
        "faces_found": pa.array(found, mask=found < 0),
    }
    return pa.table(columns).select(SUSPECT_SCHEMA.names).cast(SUSPECT_SCHEMA)


def _table(rows: Sequence[Row]) -> bytes:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_TABLE)
    for row in rows:
        values = row | {"kinds": " ".join(row["kinds"])}
        writer.writerow([_short(values[name]) for name in _TABLE])
    return text.getvalue().encode()


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
