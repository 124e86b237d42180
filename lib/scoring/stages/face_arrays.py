"""Arrays of faces as Arrow columns: a list for each image, an array of one shape for each face."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def face_column(faces: NDArray[Any], counts: Sequence[int] | NDArray[np.int64]) -> pa.ListArray:
    """Put the faces of a batch into a column.

    Args:
        faces: (n, ...) of any number type: the faces of all images, one image after the other.
        counts: faces of each image, (images,), n together.

    Returns:
        (images,), lists of numbers, or of fixed-size lists that hold a flattened array each.
    """
    values = pa.array(np.ascontiguousarray(faces).reshape(-1))
    if faces.ndim > 1:
        values = pa.FixedSizeListArray.from_arrays(values, int(np.prod(faces.shape[1:])))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def faces_of(batch: pa.Table, name: str, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    """Undo `face_column`: (n, *shape), the faces of all images of the batch."""
    values = batch[name].combine_chunks().flatten()
    if shape:
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(-1, *shape)


def main_faces_of(batch: pa.Table, name: str, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    """The first face of each image that has any, (images with faces, *shape)."""
    counts = face_counts(batch, name)
    return faces_of(batch, name, shape)[(np.cumsum(counts) - counts)[counts > 0]]


def face_counts(batch: pa.Table, name: str) -> NDArray[np.int64]:
    """Faces of each image of the batch, (images,), by any column of `face_column`."""
    return np.asarray(pc.list_value_length(batch[name]).to_numpy(), np.int64)
