"""Folders of Parquet files that are one table, and names in tables, on a local disk and in a bucket."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.archive.archive import Archive, Position, Reading
from lib.archive.image_names import named_uri, with_lower_scheme
from lib.archive.manifest import write_manifest
from lib.common.errors import UserError
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.stage import Stopwatch
from lib.storage.folder import folder
from tests.lib.archive.conftest import Make
from tests.s3_server import S3Server


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


LIST = {
    "lists/a.parquet/part-1.parquet": parquet(path=["1.jpg", "2.jpg", "sub/3.jpg"], n=[1, 2, 3]),
    "lists/a.parquet/part-0.snappy.parquet": parquet(path=["s3://b/0.jpg", ""], n=[0, 7]),
    "lists/a.parquet/year=2019/month=1/part-0.parquet": parquet(path=["4.jpg"], n=[4]),
    "lists/a.parquet/year=2020/_day=1/part-0.parquet": parquet(path=["5.jpg"], n=[5]),
    "lists/a.parquet/_SUCCESS": b"",
    "lists/a.parquet/_metadata": b"",
    "lists/a.parquet/.part-1.parquet.crc": b"crc",
    "lists/a.parquet/_temporary/0/part-9.parquet": parquet(path=["no.jpg"], n=[9]),
    "lists/1.jpg": b"",
}


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_of_parquet_files_is_one_table(make: Make, slash: str) -> None:
    root, reading = make(LIST)
    reading = Reading(carry=("n",), storage=reading.storage)
    archive = Archive([f"{root}/lists/a.parquet{slash}"], reading=reading)
    assert archive.carried() == [pa.field("n", pa.int64())]
    lists = f"{root}/lists"
    assert [(entry.uri, entry.extra) for entry in archive] == [
        ("s3://b/0.jpg", (0,)),
        (f"{lists}/a.parquet/part-0.snappy.parquet#1", (7,)),
        (f"{lists}/1.jpg", (1,)),
        (f"{lists}/2.jpg", (2,)),
        (f"{lists}/sub/3.jpg", (3,)),
        (f"{lists}/4.jpg", (4,)),
        (f"{lists}/5.jpg", (5,)),
    ]


def test_its_column_may_be_chosen(make: Make) -> None:
    files = {"a.parquet/0.parquet": parquet(photo=["x.jpg"], path=["y.jpg"])}
    root, reading = make(files)
    reading = Reading(column="photo", storage=reading.storage)
    assert [e.uri for e in Archive([f"{root}/a.parquet"], reading=reading)] == [f"{root}/x.jpg"]


def test_it_may_hold_the_images_themselves(make: Make) -> None:
    root, reading = make({"a.parquet/0.parquet": parquet(image=[b"1", b"2"])})
    entries = list(Archive([f"{root}/a.parquet"], reading=reading))
    part = f"{root}/a.parquet/0.parquet"
    assert [(e.uri, e.container, e.offset) for e in entries] == [
        (f"{part}#0", part, 0), (f"{part}#1", part, 1)
    ]  # fmt: skip


def test_a_listing_goes_on_behind_every_row(make: Make) -> None:
    root, reading = make(LIST)
    sources = [f"{root}/lists/a.parquet", f"{root}/lists/1.jpg"]
    whole = list(Archive(sources, reading=reading))
    assert len(whole) == 8
    for stopped in range(1, len(whole)):
        first = Archive(sources, limit=stopped, reading=reading)
        assert list(first) == whole[:stopped]
        position = Position(*json.loads(json.dumps(first.position)))
        assert list(Archive(sources, reading=reading).behind(position)) == whole[stopped:], stopped


def test_its_manifest_has_the_carried_columns(make: Make, tmp_path: Path) -> None:
    root, reading = make(LIST)
    reading = Reading(carry=("n",), storage=reading.storage)
    target = folder(tmp_path / "manifest")
    manifest = write_manifest(Archive([f"{root}/lists/a.parquet"], reading=reading), target)
    (part,) = manifest.parts
    assert target.read_table(part, ["n"])["n"].to_pylist() == [0, 7, 1, 2, 3, 4, 5]


def test_within_a_folder_it_is_no_source(make: Make) -> None:
    """A table of names in a folder most likely describes the images beside it."""
    root, reading = make(LIST)
    found = Archive([root], reading=reading)
    assert [entry.uri for entry in found] == [f"{root}/lists/1.jpg"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.parquet/_SUCCESS": b""}, "there is no Parquet file in"),
        ({"a.parquet/x.jpg": b""}, "there is no Parquet file in"),
        ({"a.parquet.old/0.parquet": parquet(path=["x"])}, "a.parquet'"),
    ],
)
def test_a_folder_without_a_table_is_one_line(
    make: Make, files: dict[str, bytes], says: str
) -> None:
    root, reading = make(files)
    with pytest.raises(UserError) as caught:
        list(Archive([f"{root}/a.parquet"], reading=reading))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


NAMES = ["a.jpg", "./b.jpg", "../c.jpg", "../../out.jpg", "HTTPS://host/d.jpg?size=2"]


def test_names_in_a_list_beside_its_pictures(make: Make) -> None:
    root, reading = make({"dir/list.csv": "\n".join(["path", *NAMES]).encode()})
    found = list(Archive([f"{root}/dir/list.csv"], reading=reading))
    uris = [entry.uri for entry in found]
    parent = root.rpartition("/")[0]
    places = [f"{root}/dir/a.jpg", f"{root}/dir/b.jpg", f"{root}/c.jpg", f"{parent}/out.jpg"]
    if root.startswith("s3://"):
        assert uris[:4] == places
    else:
        assert [Path(uri).resolve() for uri in uris[:4]] == [Path(p).resolve() for p in places]
    assert uris[4] == "https://host/d.jpg?size=2"
    assert all(entry.fault is None for entry in found)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_image_as_a_data_uri_has_a_short_uri(tmp_path: Path, suffix: str) -> None:
    """A row of labels has the uri, so it must not hold the image."""
    large = f"data:image/png;base64,{'A' * 200_000}"
    table = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        table.write_text(f'url\n"DATA:,x"\n"{large}"\n')
    elif suffix == "jsonl":
        table.write_text("".join(json.dumps({"url": u}) + "\n" for u in ("DATA:,x", large)))
    else:
        table.write_bytes(parquet(url=["DATA:,x", large]))
    assert [(e.uri, e.container, e.offset) for e in Archive([str(table)])] == [
        (f"{table}#0", "DATA:,x", None), (f"{table}#1", large, None)
    ]  # fmt: skip


def test_an_image_as_a_data_uri_is_fetched_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A storage that does not know the scheme reads the file of this name.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data:,x").write_bytes(b"x")
    row = {"uri": "t.csv#0", "container": "data:,x"}
    stage = Fetch(10**6)
    stage.setup(Stopwatch())
    assert stage(pa.Table.from_pylist([row, row]))["data"].to_pylist() == [b"x", b"x"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.jpg", "s3://bucket/dir/x.jpg"),
        ("./sub/./x.jpg", "s3://bucket/dir/sub/x.jpg"),
        ("../x.jpg", "s3://bucket/x.jpg"),
        ("sub//x.jpg", "s3://bucket/dir/sub//x.jpg"),
        ("a..b/...jpg", "s3://bucket/dir/a..b/...jpg"),
        ("../../other/x.jpg", None),
        ("/abs/x.jpg", "/abs/x.jpg"),
        ("file:///abs/x.jpg", "file:///abs/x.jpg"),
        ("FILE:///abs/x.jpg", "file:///abs/x.jpg"),
        ("S3://Other/X.jpg", "s3://Other/X.jpg"),
        ("http://host/x.jpg", "http://host/x.jpg"),
        ("data:image/png;base64,AA//", "data:image/png;base64,AA//"),
        ("DATA:image/png;base64,AA//", "DATA:image/png;base64,AA//"),
    ],
)
def test_names_beside_a_list_in_a_bucket(name: str, expected: str | None) -> None:
    assert named_uri(name, "s3://bucket/dir") == expected


def test_a_name_that_leads_out_of_the_bucket_is_a_row(s3: S3Server) -> None:
    s3.bucket("leads-out").joinpath("list.csv").write_text("path\n../x.jpg\ny.jpg\n")
    outside, inside = Archive(["s3://leads-out/list.csv"], reading=Reading(storage=s3.options))
    assert outside.fault == "not_found: the name leads out of the bucket"
    assert (inside.uri, inside.fault) == ("s3://leads-out/y.jpg", None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("S3://Bucket/X", "s3://Bucket/X"),
        ("FILE:///X", "file:///X"),
        ("file:///X", "file:///X"),
        ("/A://b", "/A://b"),
        ("X.jpg", "X.jpg"),
    ],
)
def test_the_scheme_of_an_address_is_in_lower_case(given: str, expected: str) -> None:
    assert with_lower_scheme(given) == expected


@pytest.mark.parametrize("source", ["", "/a.jpg", "/list.parquet"])
def test_a_source_with_a_scheme_in_upper_case(make: Make, source: str) -> None:
    root, reading = make({"a.jpg": b"", "list.parquet": parquet(path=["a.jpg"])})
    shouted = root.replace("s3://", "S3://") if "://" in root else f"FILE://{root}"
    found = Archive([f"{shouted}{source}"], reading=reading)
    assert [entry.uri for entry in found] == [f"{root}/a.jpg"]
