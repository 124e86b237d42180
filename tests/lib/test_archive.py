import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lib import archive
from lib.archive import Archive, FetchError, fetch, local_path, read_summary, write_manifest
from lib.errors import UserError
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
    assert found.skipped == {"other file type": 3}


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


def test_no_link_is_followed_and_no_pipe_opened(tree: Path) -> None:
    (tree / "loop").symlink_to(tree)
    (tree / "out.jpg").symlink_to("/etc/hostname")
    (tree / "dangling.jpg").symlink_to("nowhere")
    os.mkfifo(tree / "pipe.jpg")
    (tree / "folder.jpg").mkdir()
    found = Archive([str(tree)])

    assert len(list(found)) == 4
    assert found.skipped == {"other file type": 3, "symbolic link": 3, "not a regular file": 1}


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
        ("s3://bucket/prefix", "not supported yet"),
        ("gs://bucket", "not supported yet"),
        ("file://host/path", "not supported yet"),
    ],
)
def test_a_source_that_cannot_be_listed_is_named(source: str, says: str) -> None:
    message = refused(source)
    assert says in message
    assert repr(source) in message


def test_a_single_file_that_is_no_image_is_refused(tree: Path) -> None:
    assert "not supported yet" in refused(tree / "notes.txt")


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    message = refused(tmp_path)
    assert str(tmp_path) in message
    assert "1 x other file type" in message


def test_every_name_survives_the_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "nasty"
    expected = nasty.make_nasty(folder)

    write_manifest(Archive([str(folder)]), str(tmp_path / "manifest"))

    uris = pq.read_table(tmp_path / "manifest").column("uri").to_pylist()
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


def test_the_manifest(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_ROWS", 3)
    monkeypatch.setattr(archive, "GROUP_ROWS", 2)
    entries = list(Archive([str(tree)]))

    summary = write_manifest(Archive([str(tree)]), str(tmp_path / "out" / "manifest"))

    folder = tmp_path / "out" / "manifest"
    table = pq.read_table(folder)
    assert table.schema.equals(archive.SCHEMA)
    assert table.to_pylist() == [
        {"id": id_, "uri": entry.uri, "size": entry.size, "etag": entry.etag}
        for id_, entry in enumerate(entries)
    ]
    assert [
        pq.read_metadata(path).num_row_groups for path in sorted(folder.glob("part-*.parquet"))
    ] == [2, 1]
    assert (summary.images, summary.bytes) == (4, 26)
    assert summary.skipped == {"other file type": 3}
    assert read_summary(str(folder)) == summary


def test_the_digest_tells_archives_apart(tree: Path, tmp_path: Path) -> None:
    def digest(name: str) -> str:
        return write_manifest(Archive([str(tree)]), str(tmp_path / name)).digest

    first = digest("first")
    assert digest("same") == first
    os.utime(tree / "a.jpeg", ns=(0, 1))
    assert digest("touched") != first


def test_an_interrupted_listing_leaves_no_manifest(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "manifest"
    (tmp_path / "manifest.tmp").mkdir()
    (tmp_path / "manifest.tmp" / "part-00007.parquet").write_text("left by a killed run")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "PART_ROWS", 3)
        patch.setattr(archive, "_why_skipped", _interrupt_at("c.tif"))
        with pytest.raises(KeyboardInterrupt):
            write_manifest(Archive([str(tree)]), str(target))
    assert not list(tmp_path.glob("manifest*"))

    with pytest.raises(FileNotFoundError):
        read_summary(str(target))
    assert write_manifest(Archive([str(tree)]), str(target)).images == 4
    with pytest.raises(FileExistsError):
        write_manifest(Archive([str(tree)]), str(target))


def _interrupt_at(name: str) -> Callable[[str, int], str | None]:
    original = archive._why_skipped

    def why_skipped(path: str, mode: int) -> str | None:
        if path.endswith(name):
            raise KeyboardInterrupt
        return original(path, mode)

    return why_skipped


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
    assert fetch(str(tree / "a.jpeg"), 6) == b"a.jpeg"


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
