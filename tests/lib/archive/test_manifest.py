import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lib.archive import manifest
from lib.archive.archive import Archive, Reading
from lib.archive.entry import Entry
from lib.archive.manifest import SCHEMA, read_manifest, update, write_manifest
from lib.common.errors import UserError
from lib.storage.folder import Folder, folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.jpg", "b/10.PNG", "a.jpeg", "c.tif", "notes.txt"):
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path / "tree"


@pytest.fixture
def target(tmp_path: Path) -> Folder:
    return folder(tmp_path / "out" / "manifest")


def uris(target: Folder) -> dict[str, int]:
    """Name of each image → its id, from the parts that count."""
    found = {}
    for part in read_manifest(target).parts:
        for row in target.read_table(part, ["id", "uri"]).to_pylist():
            found[Path(row["uri"]).name] = row["id"]
    assert target.files() == sorted(read_manifest(target).parts)
    return found


def test_the_manifest(tree: Path, target: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PART_ROWS", 3)
    monkeypatch.setattr(manifest, "GROUP_ROWS", 2)
    entries = list(Archive([str(tree)]))
    written = write_manifest(Archive([str(tree)]), target)
    table = pq.read_table(target.uri)
    assert table.schema.equals(SCHEMA)
    assert [row["uri"] for row in table.to_pylist()] == [entry.uri for entry in entries]
    assert table["id"].to_pylist() == [0, 1, 2, 3]
    groups = [pq.read_metadata(f"{target.uri}/{part}").num_row_groups for part in written.parts]
    assert groups == [2, 1]
    assert (written.images, written.bytes, written.next_id) == (4, 26, 4)
    assert written.skipped == {"other file type": 1}
    assert read_manifest(target) == written
    assert written.ids(target).tolist() == [True] * 4


def test_the_digest_tells_archives_apart(tree: Path, tmp_path: Path) -> None:
    def digest(name: str) -> str:
        return write_manifest(Archive([str(tree)]), folder(tmp_path / name)).digest

    first = digest("first")
    assert digest("same") == first
    os.utime(tree / "a.jpeg", ns=(0, 1))
    assert digest("touched") != first


class Stopped(Archive):
    """Breaks off behind so many images."""

    stop = 0

    def _behind(self, position: object) -> Iterator[Entry]:
        for number, entry in enumerate(super()._behind(position)):  # type: ignore[arg-type]
            if number == self.stop:
                raise KeyboardInterrupt
            yield entry


@pytest.mark.parametrize("stop", range(4))
def test_a_listing_that_was_stopped_goes_on(
    tree: Path, tmp_path: Path, target: Folder, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "PART_ROWS", 1)
    undisturbed = write_manifest(Archive([str(tree)], limit=4), folder(tmp_path / "undisturbed"))
    archive = Stopped([str(tree)], limit=4)
    archive.stop = stop
    with pytest.raises(KeyboardInterrupt):
        write_manifest(archive, target)
    assert len(target.files()) == stop
    with pytest.raises(FileNotFoundError):
        read_manifest(target)
    assert write_manifest(Archive([str(tree)], limit=4), target) == undisturbed
    assert not target.holds("_listing.json")


def test_an_empty_archive_has_no_manifest(tmp_path: Path, target: Folder) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in"):
        write_manifest(Archive([str(tmp_path / "empty")]), target)
    with pytest.raises(FileNotFoundError):
        read_manifest(target)


def test_nothing_new(tree: Path, target: Folder) -> None:
    old = write_manifest(Archive([str(tree)]), target)
    found = update(Archive([str(tree)]), target, old, prune=True)
    assert found.is_empty
    assert found.finish(old) == old == read_manifest(target)
    assert len(uris(target)) == 4


@pytest.mark.parametrize("prune", [False, True])
def test_new_changed_and_vanished(tree: Path, target: Folder, prune: bool) -> None:
    old = write_manifest(Archive([str(tree)]), target)
    before = uris(target)
    (tree / "b" / "0.jpg").write_bytes(b"new")
    (tree / "c.tif").write_bytes(b"changed")
    (tree / "a.jpeg").unlink()
    found = update(Archive([str(tree)]), target, old, prune)
    assert read_manifest(target) == old  # until it is finished, the old one counts
    assert (found.new, len(found.vanished)) == (1, 1)
    assert found.changed.tolist() == [before["c.tif"]]
    gone = {before["c.tif"], before["a.jpeg"]} if prune else {before["c.tif"]}
    assert set(found.to_forget.tolist()) == gone
    new = found.finish(old)
    expected = {**before, "0.jpg": 4}
    if prune:
        del expected["a.jpeg"]
    assert uris(target) == expected
    assert new.next_id == 5
    assert new.generation == 1
    ids = np.flatnonzero(new.ids(target))
    assert sorted(ids.tolist()) == sorted(expected.values())


def test_images_named_twice_keep_their_ids(tmp_path: Path, target: Folder) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text("\n".join(json.dumps({"uri": "x.jpg", "n": n}) for n in range(3)))
    reading = Reading(carry=("n",))
    old = write_manifest(Archive([str(table)], reading=reading), target)
    with table.open("a") as file:
        file.write("\n" + json.dumps({"uri": "x.jpg", "n": 3}))
    found = update(Archive([str(table)], reading=reading), target, old, prune=True)
    assert (found.new, len(found.changed), len(found.vanished)) == (1, 0, 0)
    found.finish(old)
    (part,) = read_manifest(target).parts
    assert target.read_table(part, ["id", "n"]).to_pylist() == [
        {"id": n, "n": str(n)} for n in range(4)
    ]
