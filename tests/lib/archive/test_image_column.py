"""Columns of Parquet: which one holds the images, of every type that holds text or bytes."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.archive.archive import Archive, Position, Reading
from lib.archive.entry import Entry
from lib.archive.manifest import read_manifest, update, write_manifest
from lib.common.errors import UserError
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.stage import Stopwatch
from lib.storage.folder import folder

JPEG, PNG = b"\xff\xd8\xff\xe0 jpeg", b"\x89PNG\r\n\x1a\n png"
DIGEST = bytes(range(100, 132))


def table(file: Path, **columns: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.table(columns)
    with pq.ParquetWriter(file, rows.schema) as writer:
        for start in range(0, len(rows), 2):  # Arrow cannot slice nested views
            part = rows.to_pylist()[start : start + 2]
            writer.write_table(pa.Table.from_pylist(part, rows.schema))
    return file


def listed(source: Path, column: str | None = None, carry: tuple[str, ...] = ()) -> list[Entry]:
    return list(Archive([str(source)], reading=Reading(column=column, carry=carry)))


def fetched(entries: list[Entry], column: str | None = None) -> list[bytes | str]:
    """The bytes, or the status, of each."""
    stage = Fetch(10**6, column)
    stage.setup(Stopwatch())
    names = ("uri", "size", "etag", "container", "offset", "fault")
    rows = [{name: getattr(entry, name) for name in names} for entry in entries]
    schema = pa.schema([(n, pa.int64() if n in ("size", "offset") else pa.string()) for n in names])
    found = stage(pa.Table.from_pylist(rows, schema=schema)).to_pylist()
    return [row["status"] or row["data"] for row in found]


BYTES = {
    "binary": pa.binary(), "large_binary": pa.large_binary(), "binary_view": pa.binary_view(),
    "fixed_size": pa.binary(len(JPEG)), "dictionary": pa.dictionary(pa.int32(), pa.binary()),
}  # fmt: skip
TEXT = {
    "string": pa.string(), "large_string": pa.large_string(), "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}  # fmt: skip


@pytest.mark.parametrize("type_", BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("path", TEXT.values(), ids=TEXT)
def test_images_of_every_type(tmp_path: Path, type_: pa.DataType, path: pa.DataType) -> None:
    images = pa.array([JPEG, None, JPEG, JPEG, JPEG], type_)
    names = pa.array(["a.jpg", None, "c.jpg", "d.jpg", "e.jpg"], path)
    plain = table(tmp_path / "plain.parquet", blob=images)
    struct = pa.StructArray.from_arrays([images, names], ["bytes", "path"])
    both = table(tmp_path / "struct.parquet", face=struct)
    assert fetched(listed(plain)) == [JPEG, "not_found", JPEG, JPEG, JPEG]
    entries = listed(both)
    assert [entry.uri for entry in entries] == [
        f"{both}#{name}" for name in ("a.jpg", "1", "c.jpg", "d.jpg", "e.jpg")
    ]
    assert fetched(entries) == [JPEG, "not_found", JPEG, JPEG, JPEG]


@pytest.mark.parametrize("type_", [*TEXT.values(), *BYTES.values()], ids=[*TEXT, *BYTES])
def test_names_of_every_type(tmp_path: Path, type_: pa.DataType) -> None:
    width = len(JPEG)
    names = [f"{n}.jpg".rjust(width, "x") for n in range(3)]
    values = names if type_ in TEXT.values() else [name.encode() for name in names]
    file = table(tmp_path / "list.parquet", path=pa.array(values, type_), sha256=[DIGEST] * 3)
    for column in (None, "path"):
        assert [entry.uri for entry in listed(file, column)] == [str(tmp_path / n) for n in names]


@pytest.mark.parametrize("type_", [*TEXT.values(), *BYTES.values()], ids=[*TEXT, *BYTES])
def test_carried_values_of_every_type(tmp_path: Path, type_: pa.DataType) -> None:
    text = ["x" * len(JPEG), None, "y" * len(JPEG)]
    values = text if type_ in TEXT.values() else [t and t.encode() for t in text]
    file = table(tmp_path / "t.parquet", image=[JPEG] * 3, more=pa.array(values, type_))
    target = folder(tmp_path / "manifest")
    reading = Reading(carry=("more",))
    manifest = write_manifest(Archive([str(file)], reading=reading), target)
    assert target.read_table(manifest.parts[0])["more"].to_pylist() == values
    again = update(Archive([str(file)], reading=reading), target, read_manifest(target), True)
    assert again.is_empty


def test_a_carried_column_may_be_null_in_the_first_table(tmp_path: Path) -> None:
    table(tmp_path / "in" / "1.parquet", image=[JPEG], n=pa.nulls(1))
    table(tmp_path / "in" / "2.parquet", image=[JPEG], n=[7])
    archive = Archive([str(tmp_path / "in")], reading=Reading(carry=("n",)))
    target = folder(tmp_path / "manifest")
    (part,) = write_manifest(archive, target).parts
    column = target.read_table(part)["n"]
    assert (column.type, column.to_pylist()) == (pa.int64(), [None, 7])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"path": ["a.jpg"], "sha256": [DIGEST]}, "a.jpg"),
        ({"sha256": [DIGEST], "path": ["a.jpg"], "embedding": [b"\0\0\x80\x3f"]}, "a.jpg"),
        ({"path": ["a.jpg"], "blob": pa.nulls(1, pa.binary())}, "a.jpg"),
        ({"path": ["a.jpg"], "blob": [JPEG]}, JPEG),
        ({"sha256": [DIGEST], "blob": [PNG]}, PNG),
        ({"sha256": [DIGEST], "image": [b"damaged"]}, b"damaged"),
        ({"image": [JPEG], "thumbnail": [PNG], "path": ["a.jpg"]}, JPEG),
        ({"jpg": [b""], "png": [PNG]}, PNG),
        ({"URL": ["a.jpg"], "hash": [DIGEST]}, "a.jpg"),
        ({"Path": ["a.jpg"]}, "a.jpg"),
        ({"IMAGE": [b"damaged"], "hash": [DIGEST]}, b"damaged"),
        ({"path": [["a.jpg"]], "hash": [DIGEST]}, "a.jpg"),
    ],
)
def test_the_column_is_found_by_name_then_by_values(
    tmp_path: Path, columns: dict[str, object], expected: str | bytes
) -> None:
    (entry,) = listed(table(tmp_path / "t.parquet", **columns))
    if isinstance(expected, str):
        assert entry.uri == str(tmp_path / expected)
    else:
        assert fetched([entry]) == [expected]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": [JPEG], "b": [PNG]}, "several columns of bytes (a, b); choose one with --column"),
        ({"jpg": [JPEG], "png": [PNG]}, "several columns of bytes (jpg, png)"),
        ({"sha256": [DIGEST]}, "has no column of images"),
    ],
)
def test_where_it_is_not_clear_one_line_asks(
    tmp_path: Path, columns: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        listed(table(tmp_path / "t.parquet", **columns))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_csv_may_have_names_in_upper_case(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ID,URL\n1,a.jpg\n")
    assert [entry.uri for entry in listed(tmp_path / "t.csv")] == [str(tmp_path / "a.jpg")]


def test_a_list_of_names_and_digests_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    table(tmp_path / "t.parquet", path=["a.jpg"], sha256=[DIGEST])
    table(tmp_path / "u.parquet", id=[1], sha256=[DIGEST])
    found = Archive([str(tmp_path)])
    assert [entry.uri for entry in found] == [str(tmp_path / "a.jpg")]
    assert found.skipped == {"Parquet without images": 2}


@pytest.mark.parametrize("name", ["in", "in.parquet"])
def test_tables_without_the_chosen_column_are_passed_over(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    table(source / "1.parquet", text=["x"])
    table(source / "2.parquet", photo=[JPEG])
    table(source / "3.parquet", photo=[7])
    found = Archive([str(source)], reading=Reading(column="photo"))
    assert fetched(list(found), "photo") == [JPEG]
    assert found.skipped == {"Parquet without column photo": 2}


def test_if_no_table_has_the_chosen_column_that_is_an_error(tmp_path: Path) -> None:
    table(tmp_path / "1.parquet", text=["x"])
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    with pytest.raises(UserError, match=r"--column photo: no table in .* has this column"):
        listed(tmp_path, "photo")
    table(tmp_path / "0.parquet", photo=[JPEG])
    reading = Reading(column="photo")
    first = Archive([str(tmp_path)], limit=2, reading=reading)
    assert len(list(first)) == 2
    rest = Archive([str(tmp_path)], reading=reading).behind(first.position)
    assert [entry.uri for entry in rest] == [str(tmp_path / "b.jpg")]


def test_where_bytes_are_null_the_path_is_read(tmp_path: Path) -> None:
    """As the datasets of Hugging Face are written: files by their paths, changed ones in bytes."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_bytes(JPEG)
    (tmp_path / "b.jpg").write_bytes(PNG)
    images = [
        {"bytes": None, "path": "sub/a.jpg"},
        {"bytes": None, "path": str(tmp_path / "b.jpg")},
        {"bytes": None, "path": "missing.jpg"},
        {"bytes": JPEG, "path": "sub/a.jpg"},
        {"bytes": None, "path": None},
        None,
    ]
    file = table(tmp_path / "t.parquet", image=images, n=range(6))
    entries = listed(file, carry=("n",))
    assert [entry.uri for entry in entries] == [
        f"{tmp_path}/sub/a.jpg", f"{tmp_path}/b.jpg", f"{tmp_path}/missing.jpg",
        f"{file}#sub/a.jpg", f"{file}#4", f"{file}#5",
    ]  # fmt: skip
    assert [entry.extra for entry in entries] == [(n,) for n in range(6)]
    assert fetched(entries) == [JPEG, PNG, "not_found", JPEG, "not_found", "not_found"]


LISTS = {
    "binary": ([[JPEG, PNG], [], None, [PNG]], pa.list_(pa.binary())),
    "struct": (
        [[{"bytes": JPEG, "path": "x"}, {"bytes": PNG, "path": None}], [], None,
         [{"bytes": PNG, "path": "y"}]],
        pa.large_list(pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "type_"), LISTS.values(), ids=LISTS)
def test_every_picture_of_a_list_is_a_row(
    tmp_path: Path, values: list[object], type_: pa.DataType
) -> None:
    file = table(tmp_path / "t.parquet", images=pa.array(values, type_), n=[0, 1, 2, 3])
    entries = listed(file, carry=("n",))
    assert [entry.uri for entry in entries] == [
        f"{file}#{n}" for n in ("0.0", "0.1", "1", "2", "3.0")
    ]
    assert [entry.extra for entry in entries] == [(0,), (0,), (1,), (2,), (3,)]
    assert fetched(entries) == [JPEG, PNG, "not_found", "not_found", PNG]
    assert fetched(entries[::-1]) == [PNG, "not_found", "not_found", PNG, JPEG]
    for stopped in range(1, len(entries)):
        first = Archive([str(file)], limit=stopped, reading=Reading(carry=("n",)))
        assert list(first) == entries[:stopped]
        position = Position(*json.loads(json.dumps(first.position)))
        rest = Archive([str(file)], reading=Reading(carry=("n",)))
        assert list(rest.behind(position)) == entries[stopped:]


def test_a_list_whose_bytes_are_null_names_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    images = [[{"bytes": None, "path": "a.jpg"}, {"bytes": PNG, "path": "b.jpg"}]]
    entries = listed(table(tmp_path / "t.parquet", images=images))
    assert [entry.uri for entry in entries] == [f"{tmp_path}/a.jpg", f"{tmp_path}/t.parquet#0.1"]
    assert fetched(entries) == [JPEG, PNG]


def test_arrow_without_images_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pa.ipc.new_stream(tmp_path / "indices.arrow", pa.schema([("n", pa.int64())])) as writer:
        writer.write_table(pa.table({"n": [1]}))
    found = Archive([str(tmp_path)])
    assert [entry.uri for entry in found] == [str(tmp_path / "a.jpg")]
    assert found.skipped == {"Arrow without images": 1}


@pytest.mark.parametrize("opened", [pa.ipc.new_stream, pa.ipc.new_file], ids=["stream", "file"])
@pytest.mark.parametrize("name", ["t.arrow", "in/train/data-00000-of-00001.arrow"])
def test_arrow_is_a_table(
    tmp_path: Path,
    name: str,
    opened: Callable[[pa.OSFile, pa.Schema], pa.ipc.RecordBatchStreamWriter],
) -> None:
    """As `save_to_disk` of Hugging Face's datasets writes them."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = tmp_path / "elsewhere.jpg"
    elsewhere.write_bytes(JPEG)
    images: list[list[dict[str, object] | None]] = [
        [{"bytes": JPEG, "path": "1.jpg"}, {"bytes": PNG, "path": None}],
        [{"bytes": None, "path": str(elsewhere)}, None],
        [{"bytes": PNG, "path": "2.jpg"}] * 40,
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("n", pa.int64()), ("image", image)])
    with pa.OSFile(str(file), "wb") as sink, opened(sink, schema) as writer:
        for rows in images:
            writer.write_table(pa.table({"n": range(len(rows)), "image": rows}, schema))
    entries = listed(tmp_path / name.split("/")[0], carry=("n",))
    places = ["#1.jpg", "#1", None, "#3", *["#2.jpg"] * 40]
    assert [e.uri for e in entries] == [f"{file}{p}" if p else str(elsewhere) for p in places]
    assert [e.extra[0] for e in entries] == [0, 1, 0, 1, *range(40)]
    expected = [JPEG, PNG, JPEG, "not_found", *[PNG] * 40]
    assert fetched(entries) == expected
    assert fetched(entries[::-1]) == expected[::-1]
    file.write_bytes(file.read_bytes()[:700])
    reasons = [e.fault for e in Archive([str(tmp_path)]) if e.uri.endswith("[from row 0]")]
    assert [(reason or "")[:12] for reason in reasons] == ["decode_error"]


def whole() -> bytes:
    buffer = io.BytesIO()
    names = [f"{'x' * 100}{n}.jpg" for n in range(6)]
    images = [{"bytes": JPEG, "path": name} for name in names]
    pq.write_table(
        pa.table({"image": images}), buffer, row_group_size=2, compression="none",
        use_dictionary=False, write_statistics=True,
    )  # fmt: skip
    return buffer.getvalue()


DAMAGE = {
    "empty": b"",
    "cut short": whole()[:-100],
    "cut at its beginning": whole()[:5],
    "no Parquet": b"no Parquet" * 100,
    "damaged footer": whole()[:-60] + b"\xff" * 50 + whole()[-10:],
}


@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ["in", "in.parquet"])
def test_a_damaged_table_is_one_row(tmp_path: Path, data: bytes, name: str) -> None:
    source = tmp_path / name
    table(source / "1.parquet", image=[JPEG])
    (source / "2.parquet").write_bytes(data)
    table(source / "3.parquet", image=[PNG])
    for column in (None, "image"):
        entries = listed(source, column)
        assert [entry.uri.rpartition("/")[2] for entry in entries] == [
            "1.parquet#0", "2.parquet#[from row 0]", "3.parquet#0"
        ]  # fmt: skip
        assert (entries[1].fault or "").startswith("decode_error: the table cannot be read: ")
        assert fetched(entries, column) == [JPEG, "decode_error", PNG]
    for stopped in (1, 2):
        first = Archive([str(source)], limit=stopped)
        assert list(first) == entries[:stopped]
        assert list(Archive([str(source)]).behind(first.position)) == entries[stopped:]


def test_a_damaged_table_alone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(whole()[:-100])
    with pytest.raises(UserError, match=r"cannot read '.*t\.parquet': "):
        listed(tmp_path / "t.parquet")


def test_damage_in_the_middle_spares_what_is_before_it(tmp_path: Path) -> None:
    """The page with the names of the second group of rows."""
    data = bytearray(whole())
    second = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1)
    place = second.column(1).data_page_offset
    data[place : place + 30] = b"\xff" * 30
    (tmp_path / "1.parquet").write_bytes(data)
    table(tmp_path / "2.parquet", image=[PNG])
    entries = listed(tmp_path)
    names = [entry.uri.rpartition("#")[2] for entry in entries]
    assert names == [f"{'x' * 100}0.jpg", f"{'x' * 100}1.jpg", "[from row 2]", "0"]
    assert fetched(entries) == [JPEG, JPEG, "decode_error", PNG]
    for stopped in range(1, 4):
        first = Archive([str(tmp_path)], limit=stopped)
        assert list(first) == entries[:stopped]
        assert list(Archive([str(tmp_path)]).behind(first.position)) == entries[stopped:], stopped


def test_damaged_images_spare_those_of_other_groups(tmp_path: Path) -> None:
    data = bytearray(whole())
    second = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1)
    place = second.column(0).data_page_offset
    data[place : place + 30] = b"\xff" * 30
    (tmp_path / "1.parquet").write_bytes(data)
    entries = listed(tmp_path)
    assert len(entries) == 6
    assert fetched(entries) == [JPEG, JPEG, "decode_error", "decode_error", JPEG, JPEG]
