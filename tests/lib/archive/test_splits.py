"""Splits that folders and shards name, as a carried column."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.archive.archive import Archive, Position, Reading
from lib.archive.splits import split_of
from lib.common.errors import UserError
from tests.lib.archive.conftest import Make
from tests.nasty import jpeg, quadrants

IMAGE = jpeg(quadrants(8, 8))


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def tar(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(IMAGE)
            file.addfile(member, io.BytesIO(IMAGE))
    return buffer.getvalue()


def splits(root: str, reading: Reading, *sources: str, carry: str = "split") -> list[object]:
    """Schema of the carried column and, by the end of its uri, the split of each image."""
    carrying = Reading(carry=(carry,), storage=reading.storage)
    archive = Archive([f"{root}/{source}" for source in sources], reading=carrying)
    found = {entry.uri.removeprefix(f"{root}/"): entry.extra for entry in archive}
    return [archive.carried(), {name: extra[0] for name, extra in found.items()}]


@pytest.mark.parametrize(
    ("uri", "source", "split"),
    [
        ("/data/set/train/a/1.jpg", "/data/set", "train"),
        ("/data/set/Test/1.jpg", "/data/set/", "test"),
        ("/data/set/validation/1.jpg", "/data/set/validation", "validation"),
        ("/data/train/set/1.jpg", "/data/train/set", None),
        ("/data/set/trains/1.jpg", "/data/set", None),
        ("/data/set/train-1.jpg", "/data/set", None),
        ("/data/set/data/train-00000-of-00002.parquet", "/data/set", "train"),
        ("/data/set/data/training.parquet", "/data/set", None),
        ("/data/set/dev.tar#x/1.jpg", "/data/set", "dev"),
        ("/data/set/all.tar#val/1.jpg", "/data/set", "val"),
        ("s3://bucket/set/test_0.tar#1.jpg", "s3://bucket/set", "test"),
        ("/data/set/photo#train/1.jpg", "/data/set", "train"),
    ],
)
def test_places_and_their_splits(uri: str, source: str, split: str | None) -> None:
    assert split_of(uri, source) == split


def test_folders_of_images(make: Make) -> None:
    root, reading = make(
        {"set/train/1.jpg": IMAGE, "set/test/a/2.jpg": IMAGE, "set/cover.jpg": IMAGE}
    )
    expected = {"set/train/1.jpg": "train", "set/test/a/2.jpg": "test", "set/cover.jpg": None}
    assert splits(root, reading, "set") == [[pa.field("split", pa.string())], expected]


def test_shards_as_hugging_face_has_them(make: Make) -> None:
    """The dataset card is passed over."""
    rows = {"image": [{"bytes": IMAGE, "path": "1.jpg"}], "label": [3]}
    root, reading = make(
        {
            "set/README.md": b"---\nconfigs:\n---\n",
            "set/data/train-00000-of-00002.parquet": parquet(**rows),
            "set/data/train-00001-of-00002.parquet": parquet(**rows),
            "set/data/test-00000-of-00001.parquet": parquet(**rows),
            "set/data/valid.tar": tar("2.jpg"),
        }
    )
    assert splits(root, reading, "set") == [
        [pa.field("split", pa.string())],
        {
            "set/data/test-00000-of-00001.parquet#1.jpg": "test",
            "set/data/train-00000-of-00002.parquet#1.jpg": "train",
            "set/data/train-00001-of-00002.parquet#1.jpg": "train",
            "set/data/valid.tar#2.jpg": "valid",
        },
    ]


def test_a_column_goes_before_the_place(make: Make) -> None:
    root, reading = make({"set/train/list.parquet": parquet(image=[IMAGE], split=["mine"])})
    assert splits(root, reading, "set")[1] == {"set/train/list.parquet#0": "mine"}


def test_other_columns_go_with_it(make: Make) -> None:
    root, reading = make(
        {"set/test/0.parquet": parquet(image=[IMAGE, IMAGE], n=[1, 2]), "set/train/1.jpg": IMAGE}
    )
    carrying = Reading(carry=("n", "split"), storage=reading.storage)
    archive = Archive([f"{root}/set"], reading=carrying)
    assert archive.carried() == [pa.field("n", pa.int64()), pa.field("split", pa.string())]
    assert [entry.extra for entry in archive] == [(1, "test"), (2, "test"), (None, "train")]


def test_a_listing_that_goes_on_has_the_same_splits(make: Make) -> None:
    root, reading = make({"set/train.tar": tar("1.jpg", "2.jpg"), "set/val/3.jpg": IMAGE})
    carrying = Reading(carry=("split",), storage=reading.storage)
    first = Archive([f"{root}/set"], reading=carrying)
    entries = first.behind(Position())
    assert next(entries).extra == ("train",)
    rest = Archive([f"{root}/set"], reading=carrying).behind(first.position, 1)
    assert [entry.extra for entry in rest] == [("train",), ("val",)]


def test_a_list_without_a_split_is_refused(make: Make) -> None:
    root, reading = make({"set/list.csv": b"path,n\n1.jpg,2\n"})
    with pytest.raises(UserError, match=r"list\.csv' has no column split; it has path, n"):
        splits(root, reading, "set/list.csv")


def test_a_list_below_a_split(make: Make) -> None:
    root, reading = make({"train/list.csv": b"path,n\n1.jpg,2\n", "train/1.jpg": IMAGE})
    assert splits(root, reading, "train/list.csv")[1] == {"train/1.jpg": "train"}
