"""Members of tars that are no plain files: the content of hard links, and what is passed over."""

import io
import json
import tarfile

import pytest

from lib.archive import tar_ranges
from lib.archive.archive import Archive, Position, Reading
from lib.archive.entry import Entry
from lib.archive.manifest import read_manifest, update, write_manifest
from lib.storage.fetch import fetch
from lib.storage.folder import folder
from tests.lib.archive.conftest import Make
from tests.lib.archive.test_tar import SPARSE

Members = list[tuple[str, bytes, str | bytes]]
"""Name, type, and the content or the target."""


def packed(members: Members) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, type_, content in members:
            info = tarfile.TarInfo(name)
            info.type = type_
            if isinstance(content, str):
                info.linkname = content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return file.getvalue()


FILE, HARD, SYMBOLIC = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
LONG = "/".join(["a long folder name"] * 12)
LINKED: Members = [
    ("first.jpg", FILE, b"1" * 700),
    ("store/c0ffee", FILE, b"2" * 3000),
    ("near.jpg", HARD, "first.jpg"),
    ("of-a-file-without-an-ending.jpg", HARD, "store/c0ffee"),
    ("first.jpg", FILE, b"4" * 900),
    ("newer.jpg", HARD, "./first.jpg"),
    ("no-image.txt", HARD, "first.jpg"),
    (f"{LONG}/x.jpg", FILE, b"5" * 10),
    ("of-a-long-name.jpg", HARD, f"{LONG}/x.jpg"),
    ("of-a-link.jpg", HARD, "near.jpg"),
    ("last.jpg", FILE, b"6" * 2500),
]
CONTENTS = {
    "near.jpg": b"1" * 700,
    "of-a-file-without-an-ending.jpg": b"2" * 3000,
    "newer.jpg": b"4" * 900,
    f"{LONG}/x.jpg": b"5" * 10,
    "of-a-long-name.jpg": b"5" * 10,
    "of-a-link.jpg": b"1" * 700,
    "last.jpg": b"6" * 2500,
}


def content(entry: Entry, reading: Reading) -> bytes:
    assert entry.container is not None
    assert entry.offset is not None
    return fetch(entry.container, 10**6, entry.offset, entry.size, reading.storage).data


@pytest.mark.parametrize("range_bytes", [1024, 4096, 1 << 20])
def test_a_hard_link_has_the_content_of_its_target(
    make: Make, range_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_ranges, "RANGE_BYTES", range_bytes)
    root, reading = make({"t.tar": packed(LINKED)})
    found = Archive([root], reading=reading)
    entries = list(found)
    assert [entry.fault for entry in entries] == [None] * 9
    assert found.skipped == {"other file type": 2}
    contents = [(e.uri.removeprefix(f"{root}/t.tar#"), content(e, reading)) for e in entries]
    assert contents[0] == ("first.jpg", b"1" * 700)
    assert ("first.jpg", b"4" * 900) in contents[1:]
    assert {name: data for name, data in contents if name != "first.jpg"} == CONTENTS


def test_a_listing_goes_on_behind_every_link(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_ranges, "RANGE_BYTES", 2048)
    links: Members = [("s.jpg", SYMBOLIC, "first.jpg"), ("none.jpg", HARD, "none")]
    root, reading = make({"t.tar": packed([*LINKED, *links])})
    whole = Archive([root], reading=reading)
    entries = list(whole)
    assert len(entries) == 10
    for stopped in range(1, len(entries)):
        first = Archive([root], limit=stopped, reading=reading)
        assert list(first) == entries[:stopped]
        rest = Archive([root], reading=reading)
        assert (
            list(rest.behind(Position(*json.loads(json.dumps(first.position)))))
            == entries[stopped:]
        )
        assert first.skipped + rest.skipped == whole.skipped, stopped


def test_an_update_finds_every_link_again(
    make: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, reading = make({"t.tar": packed(LINKED)})
    target = folder(tmp_path_factory.mktemp("manifest"))
    write_manifest(Archive([root], reading=reading), target)
    assert update(Archive([root], reading=reading), target, read_manifest(target), True).is_empty


def test_a_link_to_nothing_is_a_row(make: Make) -> None:
    """A link names only what is before it."""
    root, reading = make({"t.tar": packed([("l.jpg", HARD, "a.jpg"), ("a.jpg", FILE, b"a")])})
    link, image = Archive([root], reading=reading)
    assert link.uri == f"{root}/t.tar#l.jpg"
    assert link.fault == "not_found: a hard link to 'a.jpg', which is not before it in the tar"
    assert (image.fault, image.size) == (None, 1)


@pytest.mark.parametrize("sparse", SPARSE.values(), ids=SPARSE)
def test_a_sparse_image_is_one_row_and_so_is_a_link_to_it(make: Make, sparse: bytes) -> None:
    root, reading = make(
        {"t.tar": sparse + packed([("l.jpg", HARD, "s.jpg"), ("a.jpg", FILE, b"a")])}
    )
    entries = list(Archive([root], reading=reading))
    fault = "decode_error: a sparse file in a tar, whose content is not in one piece"
    assert [(e.uri.rpartition("#")[2], e.fault) for e in entries] == [
        ("s.jpg", fault), ("l.jpg", fault), ("a.jpg", None)
    ]  # fmt: skip


def test_other_types_are_counted_by_their_names(make: Make) -> None:
    members: Members = [
        ("folder", tarfile.DIRTYPE, b""),
        ("folder/a.jpg", FILE, b"a"),
        ("b.jpg", SYMBOLIC, "folder/a.jpg"),
        ("c.jpg", SYMBOLIC, "/nowhere"),
        ("d.jpg", tarfile.CHRTYPE, b""),
        ("e.jpg", tarfile.FIFOTYPE, b""),
    ]
    root, reading = make({"t.tar": packed(members)})
    found = Archive([root], reading=reading)
    assert [entry.uri for entry in found] == [f"{root}/t.tar#folder/a.jpg"]
    assert found.skipped == {"symbolic link": 2, "device": 1, "pipe": 1}
