"""What of a folder is listed, and what is passed over with a reason."""

import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.archive import run_outputs
from lib.archive.archive import Archive, Position, Reading
from lib.archive.entry import Entry
from lib.archive.selection import Selection
from lib.archive.system_files import is_system_file
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.stage import Stopwatch
from lib.storage.folder import folder
from tests.lib.archive.conftest import Make, write
from tests.s3_server import s3_options


def images(*names: str) -> dict[str, bytes]:
    return {name: name.encode() for name in names}


def listed(source: str, reading: Reading) -> tuple[list[str], dict[str, int]]:
    """Names below the source, and the counts of what was passed over."""
    found = Archive([source], reading=reading)
    uris = [entry.uri.removeprefix(f"{source}/") for entry in found]
    return uris, dict(found.skipped)


def fetched(entries: list[Entry]) -> list[tuple[bytes | None, str | None, str | None]]:
    """Bytes, status and error, as a worker reads them."""
    stage = Fetch(10**6)
    stage.setup(Stopwatch())
    rows = stage(pa.Table.from_pylist([entry._asdict() for entry in entries]).drop(["extra"]))
    return [(row["data"], row["status"], row["error"]) for row in rows.to_pylist()]


# --- Symbolic links ---------------------------------------------------------------------------------


def test_a_cache_of_the_hub_is_read_through_its_links(tmp_path: Path) -> None:
    """The links have the names, the targets the bytes, as in the cache of Hugging Face's hub."""
    blobs = write(tmp_path / "blobs", {"3f2a": b"first", "77b0": b"second"})
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "a.jpg").symlink_to("../../blobs/3f2a")
    (snapshot / "b.png").symlink_to("../../blobs/77b0")
    (snapshot / "README").symlink_to("../../blobs/77b0")
    found = Archive([str(tmp_path)])
    entries = list(found)
    assert [(e.uri, e.size) for e in entries] == [
        (str(snapshot / "a.jpg"), 5), (str(snapshot / "b.png"), 6)
    ]  # fmt: skip
    assert found.skipped == {"other file type": 3}
    assert fetched(entries) == [(b"first", None, None), (b"second", None, None)]
    os.utime(blobs / "3f2a", ns=(0, 1))
    assert next(iter(Archive([str(tmp_path)]))).etag != entries[0].etag


def test_links_to_tars_and_tables_are_opened(tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    pq.write_table(pa.table({"image": [b"1"]}), targets / "table")
    write_tar(targets / "shard", {"x.jpg": b"2"})
    links = tmp_path / "links"
    links.mkdir()
    (links / "s.tar").symlink_to(targets / "shard")
    (links / "t.parquet").symlink_to(targets / "table")
    entries = list(Archive([str(links)]))
    assert [e.uri for e in entries] == [f"{links}/s.tar#x.jpg", f"{links}/t.parquet#0"]
    assert [data for data, _, _ in fetched(entries)] == [b"2", b"1"]


def test_an_image_whose_link_leads_nowhere_is_a_row(tmp_path: Path) -> None:
    write(tmp_path, images("a.jpg", "z.jpg"))
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "gone.jpg").symlink_to("no/such.jpg")
    (tmp_path / "gone.tar").symlink_to("no/such.tar")
    (tmp_path / "gone.txt").symlink_to("no/such.txt")
    (tmp_path / "inside.jpg").symlink_to("a.jpg/inside")
    found = Archive([str(tmp_path)])
    entries = list(found)
    names = [Path(e.uri).name for e in entries]
    assert names == ["a.jpg", "circle.jpg", "gone.jpg", "gone.tar", "inside.jpg", "z.jpg"]
    assert found.skipped == {"other file type": 1}
    nowhere = (None, "not_found", "the symbolic link leads nowhere")
    assert fetched(entries)[1:5] == [nowhere] * 4
    for place, entry in enumerate(entries):
        assert list(Archive([str(tmp_path)]).behind(Position(0, entry.uri))) == entries[place + 1 :]


# --- System files -----------------------------------------------------------------------------------

PICTURES = images(
    "_DSC1.jpg",
    "_edited/g.jpg",
    "a.jpg",
    "b/c.jpg",
    "b/eaDir/d.jpg",
    "b/.hidden/e.jpg",
    "b/lost/f.jpg",
    "x._y.jpg",
)
SYSTEM_FILES = images(
    "._a.jpg",
    "b/.DS_Store",
    "b/Thumbs.db",
    "b/desktop.ini",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "b/.ipynb_checkpoints/c-checkpoint.jpg",
    ".Trash-1000/files/g.jpg",
    ".Trashes/501/g.jpg",
    "#recycle/g.jpg",
    "$Recycle.Bin/S-1-5/g.jpg",
    "__MACOSX/b/._c.jpg",
    "b/.thumbnails/c.jpg",
    "lost+found/g.jpg",
)


def test_system_files_are_passed_over(make: Make) -> None:
    assert listed(*make({**PICTURES, **SYSTEM_FILES})) == (
        sorted(PICTURES), {"system file": len(SYSTEM_FILES)}
    )  # fmt: skip


def test_all_files_are_taken_if_wanted(make: Make) -> None:
    source, reading = make({**PICTURES, **SYSTEM_FILES})
    names, skipped = listed(source, Reading(storage=reading.storage, all_files=True))
    wanted = [name for name in {**PICTURES, **SYSTEM_FILES} if name.endswith(".jpg")]
    assert names == sorted(wanted)
    assert skipped == {"other file type": 3}


def test_a_folder_of_system_files_counts_as_one(tmp_path: Path) -> None:
    write(tmp_path, images("a.jpg", "@eaDir/b.jpg", "@eaDir/c.jpg", "@eaDir/d/e.jpg"))
    assert listed(str(tmp_path), Reading()) == (["a.jpg"], {"system file": 1})


def test_a_source_may_lie_in_such_a_folder(make: Make) -> None:
    source, reading = make(images("@eaDir/photos/a.jpg"))
    assert listed(f"{source}/@eaDir", reading) == (["photos/a.jpg"], {})
    assert listed(f"{source}/@eaDir/photos", reading) == (["a.jpg"], {})


def write_tar(file: Path, members: dict[str, bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_system_files_in_a_tar(tmp_path: Path) -> None:
    shard = tmp_path / "@eaDir" / "shard.tar"
    members = {f"./{name}": data for name, data in {**PICTURES, **SYSTEM_FILES}.items()}
    write_tar(shard, members)
    found = Archive([str(shard)])
    assert [e.uri for e in found] == [f"{shard}#./{name}" for name in PICTURES]
    assert found.skipped == {"system file": len(SYSTEM_FILES)}
    everything = Archive([str(shard)], reading=Reading(all_files=True))
    assert len(list(everything)) == len(members) - 3
    assert everything.skipped == {"other file type": 3}


@pytest.mark.parametrize("name", ["Thumbs.db", "@EADIR/", "a/@eaDir/b/c.jpg", ".Trash-0/x.jpg"])
def test_names_of_system_files(name: str) -> None:
    assert is_system_file(name)


@pytest.mark.parametrize(
    "name", ["a.jpg", "@eaDir", ".Trash-1.jpg", "_._.jpg", ".x/y.jpg", "", "a/"]
)
def test_other_names(name: str) -> None:
    assert not is_system_file(name)


# --- Outputs of runs --------------------------------------------------------------------------------


def table() -> bytes:
    """Parquet that names an image, as the labels and the manifest do."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": ["a.jpg"]}), buffer)
    return buffer.getvalue()


OUTPUT = {
    "run.json": b"{}",
    "labels/part.parquet": table(),
    "manifest/part.parquet": table(),
    "report.html": b"",
    "report-pictures/00000001.jpg": b"",
}


def below(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}/{file}": data for file, data in files.items()}


def excluding(reading: Reading, output: str) -> Reading:
    exclude = run_outputs.places(folder(output, reading.storage))
    return Reading(column="uri", storage=reading.storage, exclude=exclude)


def test_the_output_of_the_run_is_passed_over(make: Make) -> None:
    unfinished = {"manifest/part.parquet": table(), "copy/own.jpg": b""}
    beside = images("a.jpg", "outer/c.jpg", "z.jpg")
    source, reading = make({**beside, **below("out", unfinished)})
    names, skipped = listed(source, excluding(reading, f"{source}/out"))
    assert names == ["a.jpg", "outer/c.jpg", "z.jpg"]
    assert set(skipped) == {"output of a run"}


def test_an_archive_may_be_its_own_output(make: Make) -> None:
    source, reading = make({**images("a.jpg", "b/c.jpg", "z-pictures/d.jpg"), **OUTPUT})
    names, skipped = listed(source, excluding(reading, source))
    assert names == ["a.jpg", "b/c.jpg", "z-pictures/d.jpg"]
    assert skipped == {"output of a run": 3, "other file type": 2}


@pytest.mark.parametrize("root", ["gs://b/photos", "s3://b/photos/"])
def test_what_contains_the_source_excludes_nothing(root: str) -> None:
    around = ("gs://b", "gs://b/photos", "s3://b", "s3://b/photos", "/photos")
    selection = Selection(root, around, all_files=False, options=s3_options())
    assert selection.why_skipped(f"{root.rstrip('/')}/a.jpg") is None


def test_a_source_in_the_output_is_taken(make: Make) -> None:
    source, reading = make(images("out/photos/a.jpg", "out/report-pictures/1.jpg"))
    for name, image in (("out/photos", "a.jpg"), ("out/report-pictures", "1.jpg")):
        assert listed(f"{source}/{name}", excluding(reading, f"{source}/out")) == ([image], {})


def test_outputs_of_other_runs_are_passed_over(make: Make) -> None:
    source, reading = make({**images("a.jpg", "b/out/d.jpg"), **below("b/out", OUTPUT)})
    names, skipped = listed(source, Reading(column="uri", storage=reading.storage))
    assert names == ["a.jpg", "b/out/d.jpg"]
    assert skipped == {"output of a run": 3, "other file type": 2}
    one_in_it = listed(f"{source}/b/out/report-pictures", reading)
    assert one_in_it == (["00000001.jpg"], {})


def test_pictures_beside_a_report_are_passed_over(make: Make) -> None:
    """The report need not lie in the output."""
    source, reading = make(
        {**images("a.jpg", "report-pictures/1.jpg", "b/report-pictures/2.jpg"), "report.html": b""}
    )
    assert listed(source, reading) == (
        ["a.jpg", "b/report-pictures/2.jpg"], {"output of a run": 1, "other file type": 1}
    )  # fmt: skip


def test_folders_that_only_sound_like_an_output_are_taken(make: Make) -> None:
    names = ["checkpoint/d.jpg", "labels/a.jpg", "manifest/b.jpg", "report-pictures/c.jpg"]
    assert listed(*make(images(*names))) == (names, {})


def test_an_output_behind_a_link_to_the_source(tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", images("a.jpg", ".out/own.jpg"))
    (tmp_path / "link").symlink_to(tree)
    link = str(tmp_path / "link")
    reading = excluding(Reading(), f"{tree}/.out")
    assert listed(link, reading) == (["a.jpg"], {"output of a run": 1})
