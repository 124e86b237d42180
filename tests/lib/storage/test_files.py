"""Storage on a real S3 server, and what goes wrong with it."""

import gzip
import io
import pickle
import random
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import cast
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.archive import listing, tar_ranges
from lib.archive.archive import Archive, Position, Reading
from lib.archive.manifest import read_manifest, update, write_manifest
from lib.common.errors import UserError
from lib.scoring.stages.fetch import CHANGED, CONTAINER_CHANGED, Fetch
from lib.scoring.stages.stage import Stopwatch
from lib.storage import retry
from lib.storage.bucket import Bucket, Object, Prefix
from lib.storage.buckets import _bucket as cached_bucket
from lib.storage.buckets import open_bucket
from lib.storage.errors import FetchError
from lib.storage.fetch import fetch
from lib.storage.folder import Folder, folder
from lib.storage.options import S3Options, StorageOptions
from lib.storage.retry import Transient, pause_seconds, retrying
from lib.storage.s3 import _client as cached_client
from tests.s3_server import ACCESS_KEY, SECRET_KEY, Fault, Proxy, S3Server, s3_options

IMAGES = 120


@pytest.fixture(scope="module")
def images(s3: S3Server) -> dict[str, bytes]:
    """Name → bytes: objects in several folders, some with names that need quoting."""
    bucket = s3.bucket("images")
    made = {f"{n % 7}/{n:03} ä+&=?#%.jpg": bytes([n]) * (n * 50 + 1) for n in range(IMAGES)}
    for name, data in made.items():
        (bucket / name).parent.mkdir(exist_ok=True)
        (bucket / name).write_bytes(data)
    (bucket / "notes.txt").write_text("no image")
    return dict(sorted(made.items()))


@pytest.fixture(scope="module")
def packed(s3: S3Server, images: dict[str, bytes]) -> None:
    """The same as a tar and as Parquet in the layout of Hugging Face."""
    bucket = s3.bucket("packed")
    with tarfile.open(bucket / "shard.tar", "w") as archive:
        for name, data in images.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    rows = [{"bytes": data, "path": name} for name, data in images.items()]
    pq.write_table(pa.table({"image": rows}), bucket / "train.parquet", row_group_size=50)


def fetched(
    place: Proxy | S3Server, source: str, timeout: float = 60, **changes: object
) -> pa.Table:
    """List without faults, then fetch, as a worker would."""
    server = place.server if isinstance(place, Proxy) else place
    return fetched_from(source, server.options, place.options, timeout)


def fetched_from(
    source: str,
    listing: StorageOptions = s3_options(),  # noqa: B008
    reading: StorageOptions = s3_options(),  # noqa: B008
    timeout: float = 60,
) -> pa.Table:
    entries = list(Archive([source], reading=Reading(storage=listing)))
    rows = [{"id": n, **entry._asdict()} for n, entry in enumerate(entries)]
    stage = Fetch(10**6, storage=reading, timeout=timeout)
    stage.setup(Stopwatch())
    batches = [pa.Table.from_pylist(rows[n : n + 32]) for n in range(0, len(rows), 32)]
    parts = [stage(batch.drop_columns(["extra"])) for batch in batches]
    return pa.concat_tables(
        part.select(["uri", "data", "status", "error", "note"]) for part in parts
    )


@pytest.mark.usefixtures("packed")
@pytest.mark.parametrize(
    ("source", "mark"),
    [("images", "images/"), ("packed/shard.tar", "#"), ("packed/train.parquet", "#")],
)
def test_the_bytes_of_every_image(
    s3: S3Server, images: dict[str, bytes], source: str, mark: str
) -> None:
    found = fetched(s3, f"s3://{source}").to_pylist()
    assert {row["uri"].split(mark, 1)[1]: row["data"] for row in found} == images
    assert all(row["status"] is row["error"] is row["note"] is None for row in found)


@pytest.mark.usefixtures("packed")
def test_neighbours_in_a_tar_are_one_request(proxy: Proxy) -> None:
    fetched(proxy, "s3://packed/shard.tar")
    wasted = 1  # this server's first range shows that obstore does not take its ranges
    assert proxy.asked == {("GET", "packed/shard.tar"): -(-IMAGES // 32) + wasted}


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses a hundredth as long."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0025)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.16)


@pytest.mark.usefixtures("hurry", "packed")
@pytest.mark.parametrize("source", ["images", "packed/shard.tar", "packed/train.parquet"])
@pytest.mark.parametrize("fault", ["503", "reset", "truncate", "stall"])
def test_what_passes_is_tried_again(
    proxy: Proxy, images: dict[str, bytes], fault: Fault, source: str
) -> None:
    """A tenth of all requests fails (of those for one file: the first); nothing of it is seen."""
    first = source != "images"
    proxy.rule = lambda method, key, times: (
        fault if (times == 0 if first else crc32(f"{key} {times}".encode()) % 10 == 0) else None
    )
    found = fetched(proxy, f"s3://{source}", timeout=1 if fault == "stall" else 20).to_pylist()
    assert proxy.faults[fault] > 0
    assert {row["error"] for row in found} == {None}
    assert [row["data"] for row in found] == list(images.values())


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("fault", "status", "attempts"),
    [
        ("403", "access_denied", 1),
        ("404", "not_found", 1),
        ("503", "download_error", retry.ATTEMPTS),
        ("reset", "download_error", retry.ATTEMPTS),
        ("truncate", "download_error", retry.ATTEMPTS),
        ("stall", "download_error", retry.GIVE_UP_AFTER_TIMEOUTS),
    ],
)
def test_what_does_not_pass_is_said(
    proxy: Proxy, images: dict[str, bytes], fault: Fault, status: str, attempts: int
) -> None:
    bad = f"images/{list(images)[40]}"
    proxy.rule = lambda method, key, times: fault if key == bad else None
    found = fetched(proxy, "s3://images", timeout=1 if fault == "stall" else 20).to_pylist()
    (row,) = [row for row in found if row["status"]]
    assert row["uri"] == f"s3://{bad}"
    assert row["status"] == status
    assert row["data"] is None
    assert SECRET_KEY not in row["error"]
    assert ACCESS_KEY not in row["error"]
    assert len(found) == IMAGES
    assert abs(proxy.asked["GET", bad] - attempts) <= (1 if fault == "stall" else 0)


@pytest.mark.usefixtures("hurry", "packed")
@pytest.mark.parametrize(
    ("fault", "status"),
    [("403", "access_denied"), ("404", "not_found"), ("503", "download_error")],
)
def test_a_table_that_cannot_be_read_is_said_of_each_image(
    proxy: Proxy, fault: Fault, status: str
) -> None:
    proxy.rule = lambda method, key, times: fault if key.endswith(".parquet") else None
    found = fetched(proxy, "s3://packed/train.parquet").to_pylist()
    assert [row["status"] for row in found] == [status] * IMAGES


@pytest.mark.usefixtures("hurry", "packed")
def test_a_table_that_does_not_answer_is_asked_again(
    proxy: Proxy, images: dict[str, bytes]
) -> None:
    """Within the time that was given for an attempt: even for the size, which is asked for first."""
    proxy.rule = lambda method, key, times: "hang" if method == "HEAD" and times == 0 else None
    started = time.monotonic()
    found = fetched(proxy, "s3://packed/train.parquet", timeout=1).to_pylist()
    assert proxy.faults["hang"] == 1
    assert [row["data"] for row in found] == list(images.values())
    assert time.monotonic() - started < 20


def test_images_of_several_tables_in_one_batch(s3: S3Server) -> None:
    """However the rows come, each gets its own bytes."""
    bucket = s3.bucket("several")
    for number in range(5):
        rows = [f"{number} {row}".encode() for row in range(40)]
        pq.write_table(pa.table({"image": rows}), bucket / f"{number}.parquet", row_group_size=7)
    entries = list(Archive(["s3://several"], reading=Reading(storage=s3.options)))
    random.Random(0).shuffle(entries)
    stage = Fetch(10**6, storage=s3.options)
    stage.setup(Stopwatch())
    batch = pa.Table.from_pylist([entry._asdict() for entry in entries]).drop_columns(["extra"])
    for row in stage(batch).to_pylist():
        table, _, number = row["uri"].rpartition("#")
        assert row["data"] == f"{table[-len('0.parquet')]} {number}".encode()


def test_an_empty_image_in_a_tar_is_empty(s3: S3Server) -> None:
    with tarfile.open(s3.bucket("empty") / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("empty.jpg"), io.BytesIO(b""))
    (row,) = fetched(s3, "s3://empty/a.tar").to_pylist()
    assert (row["data"], row["status"]) == (b"", None)


@pytest.mark.parametrize(
    "uri",
    [
        "s3:///x.jpg",
        "s3://user:zyx42@bucket/x.jpg",
        "s3://No Bucket/x.jpg",
        "/a\0b.jpg",
        "az://x/y",
    ],
)
def test_what_no_storage_can_have_is_one_bad_row(
    uri: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(FetchError) as caught:
        fetch(uri, 100, options=s3.options)
    assert caught.value.status in ("download_error", "not_found")
    assert "zyx42" not in str(caught.value)
    assert "\n" not in str(caught.value)


class _Elsewhere(BaseHTTPRequestHandler):
    """A bucket in eu-north-1, which says so as AWS does; its objects hold their own paths."""

    def do_GET(self) -> None:
        here = "/eu-north-1/s3/" in self.headers["Authorization"]
        data = self.path.encode() if here else b"<Error><Code>PermanentRedirect</Code></Error>"
        self.send_response(200 if here else 301)
        self.send_header("x-amz-bucket-region", "eu-north-1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.usefixtures("s3")
def test_a_bucket_in_another_region_and_keys_that_look_like_folders() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        options = s3_options(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
        for key in ("a.jpg", "a/../b/./c.jpg"):
            assert (
                fetch(f"s3://bucket/{key}", 100, options=options).data == f"/bucket/{key}".encode()
            )
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("packed")
def test_a_changed_object_is_labelled_and_a_changed_tar_is_not(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket("changing")
    (bucket / "a.jpg").write_bytes(b"before")
    (bucket / "a.tar").write_bytes((s3.root / "packed" / "shard.tar").read_bytes())
    stage = Fetch(10**6, storage=s3.options)
    stage.setup(Stopwatch())
    entries = list(Archive(["s3://changing"], reading=Reading(storage=s3.options)))
    s3.put("s3://changing/a.jpg", b"after")
    data = (bucket / "a.tar").read_bytes()
    s3.put("s3://changing/a.tar", data[:600] + b"other" + data[605:])
    batch = pa.Table.from_pylist([entry._asdict() for entry in entries]).drop_columns(["extra"])
    image, *members = stage(batch).to_pylist()
    assert (image["data"], image["status"], image["note"]) == (b"after", None, CHANGED)
    assert {(row["status"], row["error"]) for row in members} == {
        ("download_error", CONTAINER_CHANGED)
    }


def test_what_is_too_large_is_not_read(s3: S3Server, images: dict[str, bytes]) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(f"s3://images/{list(images)[50]}", 10, options=s3.options)
    assert caught.value.status == "too_large"


def test_pauses_grow_and_differ() -> None:
    pauses = [[pause_seconds(failures) for _ in range(20)] for failures in range(1, retry.ATTEMPTS)]
    assert all(len(set(same)) > 1 for same in pauses)
    assert 20 < sum(min(same) for same in pauses) < sum(max(same) for same in pauses) < 50
    assert max(map(max, pauses)) <= retry.LONGEST_PAUSE_SECONDS


def test_a_server_that_comes_back_is_waited_for() -> None:
    waited: list[float] = []

    def down() -> str:
        if sum(waited) < 20:
            raise Transient("the server cannot be reached")
        return "data"

    assert retrying(down, 60, wait=waited.append) == "data"


# --- Listing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most_prefixes", [500, 2])
def test_a_bucket_is_listed_in_the_order_of_its_keys(
    s3: S3Server, images: dict[str, bytes], most_prefixes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders side by side, or all at once where they are many; and on behind any key."""
    monkeypatch.setattr(listing, "MOST_PREFIXES", most_prefixes)
    reading = Reading(storage=s3.options)
    found = Archive(["s3://images"], reading=reading)
    uris = [entry.uri for entry in found]
    assert uris == [f"s3://images/{name}" for name in images]
    assert found.skipped == {"other file type": 1}
    for stopped in (1, 40, IMAGES - 1):
        position = Position(0, uris[stopped - 1])
        behind = Archive(["s3://images"], reading=reading).behind(position)
        assert [entry.uri for entry in behind] == uris[stopped:]


class _FlatAndFolder:
    """A bucket of one folder and a million keys beside it, that counts how far it was listed."""

    pages_given = 0

    def pages(
        self, prefix: str, after: str = "", folders: bool = False
    ) -> Iterator[list[Object | Prefix]]:
        if not folders:
            yield [Object("0/a.jpg", 1, "x")]
            return
        for page in range(1000):
            self.pages_given += 1
            first = [Prefix("0/")] if page == 0 else []
            yield [*first, *(Object(f"k{page:04}{n:03}.jpg", 1, "x") for n in range(1000))]


def test_flat_keys_beside_a_folder_are_given_as_they_are_listed() -> None:
    client = _FlatAndFolder()
    keys = (item.key for item in listing._objects(cast(Bucket, client), "", ""))
    assert next(keys) == "0/a.jpg"
    assert client.pages_given <= 2 + listing.MOST_AHEAD // 1000
    assert sum(1 for _ in keys) == 1_000_000


@pytest.mark.usefixtures("hurry", "packed")
def test_a_tar_that_does_not_answer_stops_the_listing(proxy: Proxy, tmp_path: Path) -> None:
    """Its images would be lost otherwise; started again, the listing goes on."""
    archive = Archive(["s3://packed/shard.tar"], reading=Reading(storage=proxy.options))
    proxy.rule = lambda method, key, times: "503" if method == "GET" else None
    with pytest.raises(OSError, match="503 SlowDown"):
        write_manifest(archive, folder(tmp_path))
    proxy.reset()
    assert write_manifest(archive, folder(tmp_path)).images == IMAGES


@pytest.mark.usefixtures("packed")
def test_an_unchanged_tar_is_not_read_again(
    s3: S3Server, proxy: Proxy, images: dict[str, bytes], tmp_path: Path
) -> None:
    manifest = folder(tmp_path)

    def archive() -> Archive:
        return Archive(["s3://updated"], reading=Reading(storage=proxy.options))

    def read() -> set[str]:
        return {key for method, key in proxy.asked if method == "GET" and key.endswith(".tar")}

    data = (s3.root / "packed" / "shard.tar").read_bytes()
    s3.bucket("updated")
    for name in ("a.tar", "b.tar"):
        proxy.server.put(f"s3://updated/{name}", data)
    old = write_manifest(archive(), manifest)
    assert read() == {"updated/a.tar", "updated/b.tar"}
    proxy.reset()
    assert update(archive(), manifest, old, prune=True).is_empty
    assert not read()
    proxy.server.put("s3://updated/b.tar", data[:600] + b"other" + data[605:])
    found = update(archive(), manifest, old, prune=True)
    assert read() == {"updated/b.tar"}
    assert (found.new, len(found.changed), len(found.vanished)) == (0, IMAGES, 0)


def test_sources_in_a_bucket(s3: S3Server, images: dict[str, bytes]) -> None:
    reading = Reading(storage=s3.options)
    folder = [name for name in images if name.startswith("3/")]
    both = Archive(["s3://images/3", "s3://images/3/", f"s3://images/{folder[0]}"], reading=reading)
    assert [entry.uri for entry in both] == [f"s3://images/{name}" for name in folder]
    for source, says in (
        ("s3://images/nothing", "there is nothing at 's3://images/nothing'"),
        ("s3://no-such-bucket", "no such bucket"),
        ("s3://", "names no bucket"),
    ):
        with pytest.raises(UserError) as caught:
            Archive([source], reading=reading)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("packed")
def test_a_tar_in_a_bucket_is_listed_in_ranges(
    proxy: Proxy, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_ranges, "RANGE_BYTES", 100_000)
    found = Archive(["s3://packed/shard.tar"], reading=Reading(storage=proxy.options))
    assert [entry.uri.partition("#")[2] for entry in found] == list(images)
    # Not one request for each member.
    assert proxy.asked["GET", "packed/shard.tar"] < IMAGES / 4


# --- Folders for results ----------------------------------------------------------------------------


@pytest.fixture(params=["local", "s3", "az"])
def place(request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path) -> Folder:
    if request.param == "local":
        return folder(tmp_path / "result")
    if request.param == "az":
        request.getfixturevalue("azure")
        return folder(f"az://photos/{tmp_path.name}")
    s3.bucket("results")
    return folder(f"s3://results/{tmp_path.name}", s3.options)


def test_files_are_read_as_they_were_written(place: Folder) -> None:
    """Whatever their names promise."""
    for name in ("inference.onnx.gz", "table.bz2", "table.zst", "table.lz4"):
        for content in (gzip.compress(b"content"), b"content"):
            place.write(name, content)
            assert place.read(name) == content


def test_a_folder_for_results(place: Folder) -> None:
    assert not place.files()
    assert not place.holds("a")
    with pytest.raises(FileNotFoundError):
        place.read("a.json")
    place.write("a.json", b"1")
    place.write("a.json", b"2")
    assert place.read("a.json") == b"2"
    table = pa.table({"id": [1, 2, 3], "x": ["a", "b", "c"]})
    (place / "labels").write_table("p.parquet", table)
    (place / "labels").write_table("q.parquet", table)
    assert (place / "labels").files() == ["p.parquet", "q.parquet"]
    assert place.files() == []
    assert place.holds("labels")
    assert (place / "labels").read_table("p.parquet", ["x"])["x"].to_pylist() == ["a", "b", "c"]
    (place / "labels").move("p.parquet", place / "other")
    (place / "labels").delete("p.parquet")
    assert (place / "labels").files() == ["q.parquet"]
    assert (place / "other").read_table("p.parquet").equals(table)
    files = pickle.loads(pickle.dumps(place.filesystem))
    assert pq.read_table(f"{place.path}/labels/q.parquet", filesystem=files).equals(table)
    (place / "labels").delete_all()
    assert not place.holds("labels")
    with suppress(RuntimeError), place.new_file("broken.parquet") as file:
        file.write(b"half")
        raise RuntimeError
    assert not place.holds("broken.parquet")


def test_a_local_folder_is_copied_with_the_telling_file_last(
    place: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    for name in ("card", "z", "inner/deep/a"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    written: list[str] = []
    write = Folder.write

    def note(self: Folder, name: str, data: bytes) -> None:
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(Folder, "write", note)
    place.upload(source, last="card")
    assert written == ["a", "z", "card"]
    assert place.read("card") == b"card"
    assert (place / "inner" / "deep").read("a") == b"inner/deep/a"


def test_a_manifest_in_a_bucket(s3: S3Server, images: dict[str, bytes], tmp_path: Path) -> None:
    s3.bucket("results")
    target = folder(f"s3://results/{tmp_path.name}/manifest", s3.options)
    written = write_manifest(Archive(["s3://images"], reading=Reading(storage=s3.options)), target)
    assert read_manifest(target) == written
    assert written.images == IMAGES
    assert written.bytes == sum(map(len, images.values()))


# --- Options ----------------------------------------------------------------------------------------


def test_requester_pays_and_anonymous(proxy: Proxy, images: dict[str, bytes]) -> None:
    """What is sent: seen by the proxy, which passes it on to the server."""
    seen: list[dict[str, str]] = []
    proxy.look = seen.append
    uri = f"s3://images/{next(iter(images))}"
    paying = s3_options(proxy.endpoint, "us-east-1", requester_pays=True)
    fetch(uri, 10**6, options=paying)
    list(Archive(["s3://images/3"], reading=Reading(storage=paying)))
    assert all(headers["x-amz-request-payer"] == "requester" for headers in seen)
    assert all("Credential=" in headers["authorization"] for headers in seen)
    seen.clear()
    with pytest.raises(FetchError):  # the server wants to know who asks
        fetch(uri, 10**6, options=s3_options(proxy.endpoint, "us-east-1", anonymous=True))
    assert "authorization" not in seen[0]


def test_the_usual_environment_and_files(
    s3: S3Server, images: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text(f"[profile mine]\nregion = eu-north-1\nendpoint_url = {s3.endpoint}\n")
    credentials.write_text(
        f"[mine]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    found = S3Options(profile="mine").resolved()
    assert found == S3Options(s3.endpoint, "eu-north-1", "mine")
    uri = f"s3://images/{next(iter(images))}"
    cached_bucket.cache_clear()
    cached_client.cache_clear()
    assert fetch(uri, 10**6, options=s3_options(profile="mine")).data == next(iter(images.values()))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert S3Options().resolved() == found
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert S3Options().resolved().endpoint == "http://127.0.0.1:1"
    with pytest.raises(UserError, match="nobody"):
        S3Options(profile="nobody").resolved()
    cached_bucket.cache_clear()
    cached_client.cache_clear()


@pytest.mark.parametrize(
    "make",
    [
        lambda: S3Options(f"http://{ACCESS_KEY}:{SECRET_KEY}@host").resolved(),
        lambda: Archive([f"s3://{ACCESS_KEY}:{SECRET_KEY}@bucket/x"]),
    ],
)
def test_credentials_in_addresses_are_not_repeated(make: object) -> None:
    with pytest.raises(UserError) as caught:
        make()  # type: ignore[operator]
    assert SECRET_KEY not in str(caught.value)


# --- Azure ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("azure")
def test_images_in_azure(images: dict[str, bytes], tmp_path: Path) -> None:
    bucket, _ = open_bucket("az://photos/")
    for name, data in images.items():
        bucket.write(f"archive/{name}", data)
    bucket.write("archive/notes.txt", b"")
    archive = Archive(["az://photos/archive"])
    uris = [entry.uri for entry in archive]
    assert uris == [f"az://photos/archive/{name}" for name in images]
    assert archive.skipped == {"other file type": 1}
    behind = Archive(["az://photos/archive"]).behind(Position(0, uris[39]))
    assert [entry.uri for entry in behind] == uris[40:]
    rows = fetched_from("az://photos/archive").to_pylist()
    assert [row["data"] for row in rows] == list(images.values())
    assert {row["error"] or row["note"] for row in rows} == {None}
    with pytest.raises(FetchError, match="no such object") as caught:
        fetch("az://photos/none.jpg", 100)
    assert caught.value.status == "not_found"
    assert not caught.value.of_place
    with pytest.raises(UserError, match="cannot read 'az://nothing-here': no such bucket"):
        Archive(["az://nothing-here"])


@pytest.mark.usefixtures("azure")
def test_a_tar_and_a_table_in_azure(
    s3: S3Server, images: dict[str, bytes], packed: None, tmp_path: Path
) -> None:
    for name in ("shard.tar", "train.parquet"):
        bucket, key = open_bucket(f"az://photos/packed/{name}")
        bucket.write(key, (s3.root / "packed" / name).read_bytes())
        found = fetched_from(f"az://photos/packed/{name}").to_pylist()
        assert {row["uri"].split("#", 1)[1]: row["data"] for row in found} == images


def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_USE_EMULATOR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="AZURE_STORAGE_ACCOUNT"):
        list(Archive(["az://other-container/photos"]))
