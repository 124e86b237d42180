"""`suspects.parquet` of jobs.audit: its columns, and the weights that training takes from it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.common.errors import UserError, reason_of
from lib.datasets.labelled_faces import LabelledFaces
from lib.storage.folder import Folder

FILE = "suspects.parquet"
SUSPECT_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("source", pa.string()),  # with the next two the key of a face, as in the audited faces
        ("source_row", pa.int64()),
        ("sha256", pa.string()),
        ("rank", pa.int64()),  # 1: the most suspect one
        ("suspicion", pa.float32()),  # probability that a label is wrong, 0..1
        ("suspect", pa.bool_()),  # whether there is any kind
        ("kinds", pa.list_(pa.string())),  # of `lib.audit.suspicion.KINDS`
        ("age", pa.int16()),  # the label; null: the face has none
        ("age_low", pa.int16()),
        ("age_high", pa.int16()),
        ("gender", pa.string()),
        ("predicted_age", pa.float32()),  # null: no model could label the picture
        ("predicted_age_std", pa.float32()),
        ("predicted_age_low", pa.float32()),  # the 99% interval
        ("predicted_age_high", pa.float32()),
        ("predicted_gender", pa.string()),
        ("predicted_gender_score", pa.float32()),  # probability of that gender, 0.5..1
        ("faces_found", pa.int16()),  # in the picture of the face; null: it cannot be decoded
    ]
)
"""One row for each face, in the order of the faces."""
_NEEDED = ("split", "source", "source_row", "sha256", "suspect")


def suspect_weights(
    file: str, folder: Folder, faces: LabelledFaces, weight: float
) -> NDArray[np.float32]:
    """How much each face of a split counts, float32 (n,), in the order of the files.

    Args:
        file: name of the file in the folder.
        folder: that holds it.
        faces: the split.
        weight: of suspect faces, 0..1; others have 1.

    Raises:
        UserError: the file cannot be read, or it is not about these faces.
    """
    where = f"--suspects {f'{folder}/{file}'!r}"
    try:
        rows = folder.read_table(file, _NEEDED)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(f"{where} is no {FILE} of jobs.audit: {reason_of(error)}") from None
    if missing := [name for name in _NEEDED if name not in rows.column_names]:
        raise UserError(f"{where} has no column {missing[0]}: give {FILE} of jobs.audit")
    rows = rows.filter(pc.equal(rows["split"], faces.split))
    names = pc.binary_join_element_wise(rows["source"], rows["source_row"].cast(pa.string()), ":")
    truth = faces.truth()
    at = pc.index_in(_keys(truth["name"], truth["sha256"]), _keys(names, rows["sha256"]))
    if at.null_count:
        raise UserError(
            f"{where} does not know {at.null_count:,} of the {len(truth):,} faces of the split "
            f"{faces.split} of {str(faces.folder)!r}; audit these faces"
        )
    suspect = rows["suspect"].take(at).to_numpy()
    return np.where(suspect, weight, 1.0).astype(np.float32)


def _keys(names: pa.ChunkedArray, digests: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(names, digests, " ")
