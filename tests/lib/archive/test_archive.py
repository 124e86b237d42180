import io
import json
import os
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.archive import tar_ranges
from lib.archive.archive import Archive, Position, Reading
from lib.common.errors import UserError
from lib.storage.errors import FetchError
from lib.storage.fetch import fetch
from lib.storage.uris import local_path
from tests import nasty

NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small archive: four images, one of them in upper case, and what is not to be listed."""
    folder = tmp_path / "tree"
    for name in ("b/2.jpg", "b/10.PNG", "a.jpeg", "c.tif", "notes.txt", "b/.DS_Store", "jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder whose permissions count: the superuser plays another user meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        superuser = os.geteuid() == 0
        if superuser:
            os.chown(folder, NOBODY, -1)
            os.seteuid(NOBODY)
        yield folder
        if superuser:
            os.seteuid(0)


def names(found: Archive, root: Path) -> list[str]:
    return [str(local_path(entry.uri).relative_to(root)) for entry in found]


def refused(*sources: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        list(Archive([str(source) for source in sources]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_are_listed_sorted_and_the_rest_counted(tree: Path) -> None:
    found = Archive([str(tree)])

    entries = list(found)

    assert [entry.uri for entry in entries] == [
        str(tree / name) for name in ("a.jpeg", "b/10.PNG", "b/2.jpg", "c.tif")
    ]
    assert [entry.size for entry in entries] == [6, 8, 7, 5]
    assert found.skipped == {"other file type": 2, "system file": 1}


def test_the_etag_changes_with_the_file(tree: Path) -> None:
    (before,) = Archive([str(tree / "a.jpeg")])
    os.utime(tree / "a.jpeg", ns=(0, 1))
    (after,) = Archive([str(tree / "a.jpeg")])

    assert before.uri == after.uri
    assert before.etag != after.etag


def test_the_limit_stops_the_listing(tree: Path) -> None:
    assert names(Archive([str(tree)], limit=2), tree) == ["a.jpeg", "b/10.PNG"]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["b", "."], ["a.jpeg", "b/10.PNG", "b/2.jpg", "c.tif"]),
        ([".", "a.jpeg", "."], ["a.jpeg", "b/10.PNG", "b/2.jpg", "c.tif"]),
        (["c.tif", "b", "c.tif"], ["c.tif", "b/10.PNG", "b/2.jpg"]),
    ],
)
def test_what_lies_in_two_sources_is_listed_once(
    tree: Path, sources: list[str], expected: list[str]
) -> None:
    assert names(Archive([str(tree / source) for source in sources]), tree) == expected


def test_a_source_under_another_name_is_listed_once(tree: Path) -> None:
    other = tree.parent / "other"
    other.symlink_to(tree / "b")

    assert len(list(Archive([str(other), str(tree)]))) == 4
    assert names(Archive([str(other)]), other) == ["10.PNG", "2.jpg"]


def test_a_link_to_a_file_is_listed_by_its_own_name(tree: Path) -> None:
    link = tree.parent / "links" / "a.jpg"
    link.parent.mkdir()
    link.symlink_to(tree / "notes.txt")

    assert names(Archive([str(link), str(link.parent)]), link.parent) == ["a.jpg"]


def test_no_link_to_a_folder_is_followed_and_no_pipe_opened(tree: Path) -> None:
    (tree / "loop").symlink_to(tree)
    (tree / "loop.jpg").symlink_to(tree)
    (tree / "link-to-pipe.jpg").symlink_to("pipe.jpg")
    os.mkfifo(tree / "pipe.jpg")
    (tree / "folder.jpg").mkdir()
    found = Archive([str(tree)])

    assert len(list(found)) == 4
    assert found.skipped == {
        "other file type": 2, "system file": 1, "link to a folder": 2, "not a regular file": 2
    }  # fmt: skip


def test_an_unreadable_folder_is_counted_and_logged(
    as_nobody: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (as_nobody / "x.jpg").touch()
    (as_nobody / "locked").mkdir(mode=0)
    found = Archive([str(as_nobody)])

    assert names(found, as_nobody) == ["x.jpg"]
    assert found.skipped == {"unreadable": 1}
    assert "locked" in caplog.text
    assert "no permission" in refused(as_nobody / "locked")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing", "no such folder or file"),
        ("two\nlines", "no such folder or file"),
        ("file:///nowhere", "no such folder or file"),
        ("ftp://host/path", "ftp:// is not supported"),
        ("https://host/shard.tar?x=1#y", "only single images are read from URLs"),
        ("file://host/path", "file:// is not supported"),
        ("photos.tar.gz", "is compressed"),
    ],
)
def test_a_source_that_cannot_be_listed_is_named(source: str, says: str) -> None:
    message = refused(source)
    assert says in message
    assert repr(source) in message


def test_a_single_file_that_is_no_image_is_refused(tree: Path) -> None:
    assert "is no source of images" in refused(tree / "notes.txt")


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    message = refused(tmp_path)
    assert str(tmp_path) in message
    assert "1 x other file type" in message


def test_every_name_survives(tmp_path: Path) -> None:
    folder = tmp_path / "nasty"
    expected = nasty.make_nasty(folder)

    uris = [entry.uri for entry in Archive([str(folder)])]
    assert {local_path(uri).name for uri in uris} == set(expected)
    assert str(folder / "100%25 sure.jpg") in uris
    assert f"file://{folder}/latin1-%E9.jpg" in uris
    for uri in uris:
        assert local_path(uri).is_file()
        assert [entry.uri for entry in Archive([uri])] == [uri]


def test_a_file_uri_is_a_source(tree: Path) -> None:
    (tree / "with space").mkdir()
    (tree / "with space" / "x.jpg").touch()
    found = Archive([f"{tree.as_uri()}/with%20space"])
    assert [entry.uri for entry in found] == [str(tree / "with space" / "x.jpg")]


def test_listing_takes_no_memory_for_what_it_has_passed(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / f"{number:03}"
        folder.mkdir()
        for image in range(100):
            (folder / f"{image:03}.jpg").touch()
    tracemalloc.start()
    count = sum(1 for _ in Archive([str(tmp_path)]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 4000
    assert peak < 200_000


def test_fetch_gives_the_bytes(tree: Path) -> None:
    assert fetch(str(tree / "a.jpeg"), 6).data == b"a.jpeg"
    assert fetch(str(tree / "a.jpeg"), 6, 2, 3).data == b"jpe"


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("missing.jpg", "not_found"),
        ("a.jpeg/inside.jpg", "not_found"),
        ("b", "download_error"),
        ("pipe.jpg", "download_error"),
        ("x" * 300 + ".jpg", "download_error"),
        ("c.tif", "too_large"),
    ],
)
@pytest.mark.timeout(10)
def test_fetch_says_why_not(tree: Path, name: str, status: str) -> None:
    os.mkfifo(tree / "pipe.jpg")
    with pytest.raises(FetchError) as caught:
        fetch(str(tree / name), 4)
    assert caught.value.status == status


def test_fetch_without_permission(as_nobody: Path) -> None:
    locked = as_nobody / "locked.jpg"
    locked.touch(mode=0)
    with pytest.raises(FetchError) as caught:
        fetch(str(locked), 10)
    assert caught.value.status == "access_denied"


def tar(file: Path, members: dict[str, bytes], cut: int = 0) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) - cut])
    return file


SHARD = {"a.jpg": b"A" * 700, "a.json": b"{}", "b/b.PNG": b"B", "c.jpg": b"C" * 5}


def test_the_images_of_a_tar(tmp_path: Path) -> None:
    shard = tar(tmp_path / "in" / "shard.tar", SHARD)
    found = Archive([str(tmp_path / "in")])
    entries = list(found)
    assert [entry.uri for entry in entries] == [
        f"{shard}#{n}" for n in ("a.jpg", "b/b.PNG", "c.jpg")
    ]
    assert found.skipped == {"other file type": 1}
    for entry, name in zip(entries, ("a.jpg", "b/b.PNG", "c.jpg"), strict=True):
        assert entry.container == str(shard)
        assert fetch(entry.container, 10**6, entry.offset or 0, entry.size).data == SHARD[name]


@pytest.mark.parametrize("cut", [10_240, 10_000, 9_000])
def test_the_rest_of_a_damaged_tar_is_one_entry(tmp_path: Path, cut: int) -> None:
    """Cut within the end marks, within the last member, or before it."""
    members = {f"{n:02}.jpg": bytes([n]) * 600 for n in range(12)}
    shard = tar(tmp_path / "shard.tar", members, cut)
    *whole, rest = Archive([str(shard)])
    assert len(whole) < 12
    assert all(entry.fault is None for entry in whole)
    assert rest.fault is not None
    assert rest.fault.startswith("decode_error: the tar cannot be read from byte ")
    assert rest.uri.startswith(f"{shard}#[from byte ")


def test_a_tar_in_ranges_is_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{n:03}.jpg": bytes([n]) * (n * 37 % 3000) for n in range(200)}
    shard = tar(tmp_path / "shard.tar", members)
    whole = list(Archive([str(shard)]))
    monkeypatch.setattr(tar_ranges, "RANGE_BYTES", 10_000)
    assert list(Archive([str(shard)])) == whole
    assert len(whole) == 200


def parquet(file: Path, **columns: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def test_parquet_that_holds_images(tmp_path: Path) -> None:
    images = [{"bytes": b"1", "path": "one.jpg"}, {"bytes": b"2", "path": None}]
    struct = parquet(tmp_path / "hf" / "train.parquet", image=images, label=[3, 4])
    bytes_ = parquet(tmp_path / "b.parquet", jpg=[b"1", b"22", b"3"], name=["a", "b", "c"])
    reading = Reading(carry=("label",))
    found = list(Archive([str(struct.parent)], reading=reading))
    assert [(e.uri, e.container, e.offset, e.extra) for e in found] == [
        (f"{struct}#one.jpg", str(struct), 0, (3,)),
        (f"{struct}#1", str(struct), 1, (4,)),
    ]
    found = list(Archive([str(bytes_)]))
    assert [(e.uri, e.offset) for e in found] == [(f"{bytes_}#{n}", n) for n in range(3)]
    (field,) = Archive([str(struct)], reading=reading).carried()
    assert field == pa.field("label", pa.int64())


ROWS = [
    {"id": "7", "path": "photos/a.jpg"},
    {"id": "8", "path": "/abs/b.jpg"},
    {"id": "9", "path": "s3://bucket/c.jpg"},
    {"id": "10", "path": ""},
]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_that_name_images(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"table.{suffix}"
    if suffix == "csv":
        file.write_text("id,path\n" + "".join(f"{row['id']},{row['path']}\n" for row in ROWS))
    elif suffix == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in ROWS))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    found = list(Archive([str(file)], reading=Reading(carry=("id",))))
    assert [e.uri for e in found] == [
        str(tmp_path / "photos/a.jpg"), "/abs/b.jpg", "s3://bucket/c.jpg", f"{file}#3"
    ]  # fmt: skip
    assert [e.extra for e in found] == [("7",), ("8",), ("9",), ("10",)]
    assert found[3].fault == "not_found: the row of the table names no image"
    behind = Archive([str(file)], reading=Reading(carry=("id",)))
    assert [e.uri for e in behind.behind(Position(0, None, str(file), 1))] == [
        e.uri for e in found[2:]
    ]


@pytest.mark.parametrize(
    ("columns", "column", "says"),
    [
        ({"n": [1]}, None, "has no column of images"),
        (
            {"a": [b""], "b": [b""]},
            None,
            "several columns of bytes (a, b); choose one with --column",
        ),
        ({"uri": ["x"]}, "url", "has no column 'url'; it has uri"),
        ({"uri": ["x"], "n": [1]}, "n", "holds neither images nor their names"),
    ],
)
def test_tables_without_a_clear_column(
    tmp_path: Path, columns: dict[str, object], column: str | None, says: str
) -> None:
    file = parquet(tmp_path / "t.parquet", **columns)
    with pytest.raises(UserError) as caught:
        list(Archive([str(file)], reading=Reading(column=column)))
    assert says in str(caught.value)


def test_tables_beside_images_are_not_taken_for_more(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    parquet(tmp_path / "metadata.parquet", file_name=["a.jpg"])
    found = Archive([str(tmp_path)])
    assert [entry.uri for entry in found] == [str(tmp_path / "a.jpg")]
    assert found.skipped == {"Parquet without images": 1}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_in_a_folder_counts_where_it_is_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a.jpg").touch()
    table, row = tmp_path / f"list.{suffix}", {"path": "s3://bucket/c.jpg"}
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), table)
    else:
        table.write_text("path\ns3://bucket/c.jpg\n" if suffix == "csv" else json.dumps(row))
    sources = [str(tmp_path), str(table)]
    assert [e.uri for e in Archive(sources)] == [str(tmp_path / "a.jpg"), "s3://bucket/c.jpg"]
    assert [e.uri for e in Archive(sources[:1])] == [str(tmp_path / "a.jpg")]


def test_a_table_of_images_in_a_folder_is_read_once_where_it_is_named(tmp_path: Path) -> None:
    table = parquet(tmp_path / "t.parquet", image=[b"a", b"b"])
    link = tmp_path.with_name(f"{tmp_path.name}-link")
    link.symlink_to(tmp_path)
    for folder in (tmp_path, link):
        assert len(list(Archive([str(folder), str(table)]))) == 2
        assert len(list(Archive([str(folder)]))) == 2


def test_carried_columns_need_a_table(tree: Path) -> None:
    with pytest.raises(UserError, match="only tables have further columns"):
        Archive([str(tree)], reading=Reading(carry=("label",))).carried()


def test_a_listing_goes_on_behind_every_image(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, tars cut into ranges, Parquet, several sources: stopped after each image."""
    monkeypatch.setattr(tar_ranges, "RANGE_BYTES", 2048)
    tar(tree / "b" / "5.tar", {f"{n}.jpg": b"x" * 900 for n in range(9)})
    parquet(tree / "d.parquet", image=[b"1", b"2", b"3"])
    other = tar(tree.parent / "other.tar", SHARD)
    sources = [str(tree), str(other)]
    whole = list(Archive(sources))
    assert len(whole) == 4 + 9 + 3 + 3
    for stopped in range(1, len(whole)):
        first = Archive(sources, limit=stopped)
        assert list(first) == whole[:stopped]
        position = Position(*json.loads(json.dumps(first.position)))
        assert list(Archive(sources).behind(position)) == whole[stopped:], stopped
