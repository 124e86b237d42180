"""Weights from suspects.parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.suspects import FILE, suspect_weights
from lib.storage.folder import folder
from tests.made_faces import make_faces


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("suspects") / "faces", train=20, val=5, test=5)


def write_suspects(folder: Path, data: Path, marked: set[int], splits: tuple[str, ...]) -> None:
    """In another order than the faces'."""
    parts = []
    for split in splits:
        file = data / f"split={split}" / "part-0.parquet"
        rows = pq.ParquetFile(file).read(["source", "source_row", "sha256"])
        suspect = [row in marked for row in rows["source_row"].to_pylist()]
        rows = rows.append_column("split", pa.array([split] * len(rows)))
        backwards = pa.array(range(len(rows) - 1, -1, -1))
        parts.append(rows.append_column("suspect", pa.array(suspect)).take(backwards))
    pq.write_table(pa.concat_tables(parts), folder / FILE)


def test_suspect_faces_of_the_split_get_the_weight(data: Path, tmp_path: Path) -> None:
    write_suspects(tmp_path, data, {3, 7}, ("test", "train"))
    weights = suspect_weights(FILE, folder(tmp_path), LabelledFaces(folder(data), "train"), 0.25)
    assert weights.dtype == np.float32
    assert np.flatnonzero(weights == 0.25).tolist() == [3, 7]
    assert (weights == 1).sum() == 18


def test_suspects_of_other_faces_are_refused(data: Path, tmp_path: Path) -> None:
    write_suspects(tmp_path, data, set(), ("val",))
    with pytest.raises(UserError, match=r"does not know 20 of the 20 faces of the split train"):
        suspect_weights(FILE, folder(tmp_path), LabelledFaces(folder(data), "train"), 0)


@pytest.mark.parametrize("content", [b"no parquet", None])
def test_a_file_that_is_none(data: Path, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"--suspects .*suspects.parquet' is no suspects.parquet"):
        suspect_weights(FILE, folder(tmp_path), LabelledFaces(folder(data), "train"), 0)


def test_a_table_without_the_columns(data: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"split": ["train"], "source": ["made"]}), tmp_path / FILE)
    with pytest.raises(UserError, match="has no column source_row"):
        suspect_weights(FILE, folder(tmp_path), LabelledFaces(folder(data), "train"), 0)
