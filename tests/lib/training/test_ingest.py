"""Encoded faces on a disk of the machine, and their decoding ahead of the steps."""

import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.faces.crop import whole
from lib.images import Limits, decode
from lib.network_input import CropSpec
from lib.storage.folder import folder as as_folder
from lib.training.decoding import BATCHES_AHEAD, BATCHES_AHEAD_OF_A_GPU, ahead
from lib.training.face_store import FaceStore, copy_faces
from lib.training.faces import load_faces, open_faces, read_labels
from tests.made_faces import make_faces
from tests.ray_head import PROJECT

SIDE = 38


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_faces(tmp_path_factory.mktemp("faces"), train=27, val=17)


def encoded(made: Path) -> list[bytes]:
    return pq.read_table(made / "split=train" / "part-0.parquet")["image"].to_pylist()


def copied(made: Path, cache: Path) -> Path:
    faces = LabelledFaces(as_folder(made), "train")
    return copy_faces(faces, "order", 27, cache)


def with_images(made: Path, folder: Path, images: list[bytes | None]) -> Path:
    """The same labels with other pictures."""
    rows = pq.read_table(made / "split=train" / "part-0.parquet")
    (folder / "split=train").mkdir(parents=True)
    rows = rows.set_column(0, "image", pa.array(images, pa.binary()))
    pq.write_table(rows, folder / "split=train" / "part-0.parquet")
    return folder


def test_the_file_holds_what_the_parquet_files_hold(made: Path, tmp_path: Path) -> None:
    file = copied(made, tmp_path)
    store, expected = FaceStore(file), encoded(made)
    assert [store.read(row) for row in range(len(store))] == expected
    size = sum(map(len, expected))
    assert store.size == size
    assert file.stat().st_size == size + 8 * (27 + 1) + 16
    written = file.stat().st_mtime_ns
    assert copied(made, tmp_path) == file
    assert file.stat().st_mtime_ns == written


def test_other_crops_of_the_same_originals_are_others(made: Path, tmp_path: Path) -> None:
    """Their digests are those of the originals."""
    others = with_images(made, tmp_path / "others", [image + b"." for image in encoded(made)])
    files = [copied(folder, tmp_path / "cache") for folder in (made, others)]
    assert files[0] != files[1]


def test_a_copy_that_is_killed_leaves_nothing_wrong(made: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from lib.datasets.labelled_faces import LabelledFaces
from tests.lib.training.test_ingest import copied
batches = LabelledFaces.batches
def killed(self, columns, rows):
    yield from [next(batches(self, columns, 7))]
    os.kill(os.getpid(), signal.SIGKILL)
LabelledFaces.batches = killed
copied(Path({str(made)!r}), Path({str(tmp_path)!r}))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("*.unfinished")
    assert left.stat().st_size > 0
    assert not list(tmp_path.glob("*.faces"))
    store = FaceStore(copied(made, tmp_path))
    assert [store.read(row) for row in range(len(store))] == encoded(made)
    assert not left.exists()


def test_workers_of_a_machine_copy_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, calls = LabelledFaces.batches, []

    def counted(self: LabelledFaces, columns: tuple[str, ...], rows: int) -> object:
        calls.append(rows)
        return batches(self, columns, rows)

    monkeypatch.setattr(LabelledFaces, "batches", counted)
    workers = [threading.Thread(target=copied, args=(made, tmp_path)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(calls) == 1
    assert len(list(tmp_path.glob("*.faces"))) == 1


def test_a_full_disk_is_said(made: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"no room for more than 0\.00 GB of encoded .* TMPDIR"):
            copied(made, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


def test_a_split_that_changes_meanwhile_is_refused(made: Path, tmp_path: Path) -> None:
    faces = LabelledFaces(as_folder(made), "train")
    with pytest.raises(UserError, match="has 27 faces now, and had 28 when its labels were read"):
        copy_faces(faces, "order", 28, tmp_path)
    assert not list(tmp_path.glob("*.faces"))


@pytest.mark.parametrize("damage", [b"", b"FACES", bytes(300)])
def test_a_damaged_file_is_refused(damage: bytes, made: Path, tmp_path: Path) -> None:
    file = copied(made, tmp_path)
    file.write_bytes(damage)
    with pytest.raises(UserError, match="is damaged; delete it"):
        FaceStore(file)


def test_faces_are_decoded_as_they_always_were(made: Path, tmp_path: Path) -> None:
    faces = load_faces(made, "train", SIDE, tmp_path)
    spec = CropSpec(SIDE, "box")
    expected = [
        whole(decode(image, Limits(), at_least=2 * SIDE).pixels, spec) for image in encoded(made)
    ]
    np.testing.assert_array_equal(faces.images(), expected)
    some = np.array([20, 3, 3, 11])
    np.testing.assert_array_equal(faces.images(some), np.stack(expected)[some])
    part = faces.part(slice(1, None, 3))
    np.testing.assert_array_equal(part.images(slice(2, 4)), np.stack(expected)[[7, 10]])
    np.testing.assert_array_equal(part.classes["age"], faces.classes["age"][1::3])
    # Brighter the older, as they were made: labels and pictures belong together.
    means = faces.images().mean(axis=(1, 2, 3))
    assert np.corrcoef(means, faces.classes["age"])[0, 1] > 0.95


@pytest.mark.parametrize(
    ("memory", "decoded"), [(27 * SIDE**2 * 3, 27), (27 * SIDE**2 * 3 - 1, 54)]
)
def test_decoded_faces_are_kept_only_where_all_fit(
    memory: int, decoded: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = LabelledFaces(as_folder(made), "train")
    opened = open_faces(faces, read_labels(faces), SIDE, tmp_path, memory=memory)
    read, rows = FaceStore.read, []

    def counted(self: FaceStore, row: int) -> bytes:
        rows.append(row)
        return read(self, row)

    monkeypatch.setattr(FaceStore, "read", counted)
    np.testing.assert_array_equal(opened.images(), opened.images())
    assert len(rows) == decoded
    assert opened.decoder.kept_bytes == (memory if decoded == 27 else 0)


def test_the_same_faces_in_another_order_are_others(made: Path, tmp_path: Path) -> None:
    first = load_faces(made, "train", SIDE, tmp_path / "cache")
    turned = tmp_path / "faces" / "split=train"
    turned.mkdir(parents=True)
    rows = pq.read_table(made / "split=train" / "part-0.parquet")
    pq.write_table(rows.take(list(range(len(rows)))[::-1]), turned / "part-0.parquet")
    second = load_faces(turned.parent, "train", SIDE, tmp_path / "cache")
    np.testing.assert_array_equal(first.images(), second.images()[::-1])
    np.testing.assert_array_equal(first.classes["age"], second.classes["age"][::-1])


@pytest.mark.parametrize("image", [b"no picture", None])
def test_a_bad_picture_is_named(image: bytes | None, made: Path, tmp_path: Path) -> None:
    images = [*encoded(made)[:5], image, *encoded(made)[6:]]
    faces = load_faces(with_images(made, tmp_path / "bad", images), "train", SIDE, tmp_path)
    faces.images(slice(0, 5))
    with pytest.raises(UserError, match=r"made:5 in the split train.*cannot be decoded"):
        faces.images()


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("age", 101, "1 faces of the split train.*made:5 has 101"),
        ("gender", None, "no possible gender: made:5 has None"),
    ],
)
def test_bad_labels_are_named(column: str, value: object, complaint: str, tmp_path: Path) -> None:
    folder = make_faces(tmp_path / "faces", train=9, val=3)
    file = folder / "split=train" / "part-0.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[5][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    with pytest.raises(UserError, match=complaint):
        load_faces(folder, "train", SIDE, tmp_path)


@pytest.mark.parametrize("most", [BATCHES_AHEAD, BATCHES_AHEAD_OF_A_GPU])
def test_batches_are_loaded_ahead_in_their_order(most: int) -> None:
    loaded = []
    together = threading.Barrier(most)

    def load(part: int) -> int:
        if part < most:
            together.wait(60)
        loaded.append(part)
        if part == 4:
            raise ValueError("the fifth")
        return part * part

    batches = ahead(load, range(20), most)
    assert [next(batches) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(ValueError, match="the fifth"):
        next(batches)
    assert sorted(loaded) == list(range(len(loaded)))
    assert len(loaded) <= 4 + 1 + most
