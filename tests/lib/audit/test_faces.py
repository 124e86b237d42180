"""The faces of an audit: their order, their labels, their folds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.audit.faces import UNKNOWN, AuditedFaces, fold_of
from lib.common.errors import UserError
from lib.datasets.labels import split_of
from lib.storage.folder import folder
from tests.made_faces import make_faces


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Row groups of 7 faces."""
    faces = make_faces(tmp_path_factory.mktemp("audited") / "faces", train=30, val=9, test=10)
    for file in faces.glob("*/*.parquet"):
        pq.write_table(pq.ParquetFile(file).read(), file, row_group_size=7)
    return faces


@pytest.fixture
def faces(data: Path) -> AuditedFaces:
    return AuditedFaces(folder(data))


def test_places_go_through_all_splits(faces: AuditedFaces) -> None:
    assert len(faces) == 49
    assert [g.start for g in faces.groups] == [0, 7, 14, 21, 28, 30, 37, 39, 46]
    read = pa.concat_tables([rows for _, rows in faces.batches(("sha256",))])
    taken = pa.concat_tables(faces.take(np.array([0, 6, 7, 29, 30, 48]), ("sha256",)))
    assert taken["place"].to_pylist() == [0, 6, 7, 29, 30, 48]
    assert taken["sha256"].to_pylist() == read["sha256"].take(taken["place"]).to_pylist()
    assert faces.of_split(np.arange(49, dtype=np.float32), "val").tolist() == [*range(30, 39)]


def test_a_block_has_only_the_faces_that_are_meant(faces: AuditedFaces) -> None:
    members = np.arange(49) % 3 == 0
    rows = faces.rows(members)
    assert rows.count == members.sum()
    places = [p for block in rows.blocks() for p in rows.read(block)["place"].to_pylist()]
    assert places == np.flatnonzero(members).tolist()
    singles = [rows.read(one) for one in rows.blocks()[0].singles()]
    assert [len(of) for of in singles] == [1, 0, 0, 1, 0, 0, 1]


def test_labels(data: Path, faces: AuditedFaces) -> None:
    labels = faces.labels()
    read = pq.read_table(data / "split=train" / "part-0.parquet", partitioning=None)
    assert labels.age_low[:30].tolist() == labels.age_high[:30].tolist() == read["age"].to_pylist()
    genders = np.array(read["gender"].to_pylist())
    assert labels.female[:30].tolist() == (genders == "female").tolist()
    assert not labels.folds.any()
    assert labels.digest == faces.labels(3).digest


def test_other_labels_are_another_audit(data: Path, tmp_path: Path) -> None:
    """The same pictures, of which one has lost its labels."""
    for split in ("train", "val", "test"):
        rows = pq.read_table(data / f"split={split}" / "part-0.parquet", partitioning=None)
        if split == "val":
            ages = rows["age"].to_pylist()
            genders = rows["gender"].to_pylist()
            ages[3], genders[3] = None, None
            rows = rows.set_column(1, "age", pa.array(ages, pa.int16()))
            rows = rows.set_column(2, "gender", pa.array(genders))
        (tmp_path / f"split={split}").mkdir()
        pq.write_table(rows, tmp_path / f"split={split}" / "part-0.parquet")
    labels = AuditedFaces(folder(tmp_path)).labels()
    assert labels.digest != AuditedFaces(folder(data)).labels().digest
    assert (labels.female[33], labels.age_low[33], labels.age_high[33]) == (UNKNOWN,) * 3


def test_a_person_and_a_picture_are_in_one_fold(tmp_path: Path) -> None:
    people = ["a", "b", None, None, "a", "b"] * 20
    digests = [f"{number // 2:064}" for number in range(120)]
    rows = {"sha256": digests, "identity": people, "age": [30] * 120, "gender": ["male"] * 120}
    (tmp_path / "split=train").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "split=train" / "part-0.parquet")
    folds = AuditedFaces(folder(tmp_path)).labels(5).folds
    for person in ("a", "b"):
        assert len({fold for fold, of in zip(folds, people, strict=True) if of == person}) == 1
    alone = folds.reshape(20, 6)[:, 2:4]
    assert (alone[:, 0] == alone[:, 1]).all()
    assert set(alone.ravel()) == {0, 1, 2, 3, 4}


def test_folds_do_not_divide_the_splits() -> None:
    keys = [f"{number:064x}" for number in range(3000)]
    folds = np.array([fold_of(key, 3) for key in keys])
    assert np.bincount(folds).min() > 900
    train = np.array([split_of(key) == "train" for key in keys])
    shares = [train[folds == fold].mean() for fold in range(3)]
    np.testing.assert_allclose(shares, 0.8, atol=0.05)


def test_no_faces(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no faces in .*; it should be the folder faces/"):
        AuditedFaces(folder(tmp_path)).labels()
