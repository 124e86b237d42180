"""Servers of object storage as people have them: what they refuse, and how they are reached."""

import os
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from lib.archive.archive import Archive, Reading
from lib.common.errors import UserError
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.stage import Stopwatch
from lib.storage import retry
from lib.storage.bucket import Object, Prefix
from lib.storage.errors import ConditionsError, FetchError
from lib.storage.fetch import fetch
from lib.storage.folder import folder
from lib.storage.options import S3Options, StorageOptions
from lib.storage.s3 import S3Bucket
from tests.certificates import make_certificate
from tests.s3_server import (
    SECRET_KEY,
    MotoServer,
    OnLoopback,
    Proxy,
    S3Server,
    proxy_before,
    s3_options,
)

ODD_KEYS = ("a//b.jpg", "/lead.jpg", "a/./b.jpg", "a/../b.jpg", "ctl\x01.jpg", "//n.jpg")
PLAIN_KEYS = ("a/ok.jpg", "x y.jpg", "é.jpg", "p%41.jpg", "h#.jpg", "t~.jpg", "b\\s.jpg", "q?.jpg")


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses a hundredth as long."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0025)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.16)


def test_keys_of_every_kind_are_listed_and_read(moto: MotoServer) -> None:
    """Also those that obstore refuses, which would end its listing of the whole bucket."""
    moto.make_bucket("odd-keys")
    boto = moto.boto()
    for key in (*ODD_KEYS, *PLAIN_KEYS):
        boto.put_object(Bucket="odd-keys", Key=key, Body=key.encode())
    found = [
        entry.uri for entry in Archive(["s3://odd-keys"], reading=Reading(storage=moto.options))
    ]
    assert sorted(found) == sorted(f"s3://odd-keys/{key}" for key in (*ODD_KEYS, *PLAIN_KEYS))
    for uri in found:
        read = fetch(uri, 100, options=moto.options)
        assert f"s3://odd-keys/{read.data.decode()}" == uri
        assert read.etag


def test_many_are_deleted_without_the_request_for_many(moto_proxy: Proxy) -> None:
    """Some servers do not know it (501); MinIO and Ceph want another checksum than boto3 sends."""
    moto_proxy.server.make_bucket("many")
    bucket, _ = moto_proxy.open("s3://many/")
    for number in range(30):
        bucket.write(f"x/{number}", b"data")

    def refuses(method: str, path: str, headers: dict[str, str]) -> int | None:
        return 501 if method == "POST" else None

    moto_proxy.refuses = refuses
    bucket.delete([*(f"x/{number}" for number in range(29)), "x/none"])
    (left,) = [item for page in bucket.pages("x/") for item in page]
    assert left.key == "x/29"
    bucket.delete([])


@pytest.mark.usefixtures("hurry")
def test_a_busy_server_delays_deletions_only(moto_proxy: Proxy) -> None:
    """It answers every third request with 503: each key is tried again, not all of them."""
    moto_proxy.server.make_bucket("busy")
    bucket, _ = moto_proxy.open("s3://busy/")
    for number in range(30):
        bucket.write(f"{number}", b"data")
    asked = count()
    moto_proxy.rule = lambda method, key, times: "503" if next(asked) % 3 == 0 else None
    bucket.delete([f"{number}" for number in range(30)])
    assert moto_proxy.faults["503"] > 9
    moto_proxy.reset()
    assert list(bucket.pages("")) == [[]]


def test_ranges_of_a_server_that_says_200(s3: S3Server, moto: MotoServer) -> None:
    """As rclone does; obstore refuses them."""
    s3.bucket("ranges")
    moto.make_bucket("ranges")
    for server in (s3, moto):
        server.put("s3://ranges/a.bin", bytes(range(100)))
        bucket, key = server.open("s3://ranges/a.bin")
        for _ in range(2):
            assert bucket.read(key, 10, 5).data == bytes(range(10, 15))
            assert bucket.read(key, 95).data == bytes(range(95, 100))
        assert bucket.read(key).data == bytes(range(100))
        assert isinstance(bucket, S3Bucket)
        assert bucket._refused == (server is s3)
        with pytest.raises(OSError, match="5 bytes; the limit is 4"):
            bucket.read(key, 10, 5, max_bytes=4)


def test_large_objects_are_written_in_parts(moto: MotoServer, s3: S3Server) -> None:
    s3.bucket("large")
    moto.make_bucket("large")
    data = os.urandom(1 << 20) * 40
    for server in (s3, moto):
        server.put("s3://large/x", data)
        bucket, key = server.open("s3://large/x")
        assert bucket.read(key).data == data
        assert bucket.head(key).size == len(data)


# --- TLS and proxies --------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurry")
def test_a_private_ca(moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = make_certificate(tmp_path, ca=True)
    moto.make_bucket("private")
    moto.put("s3://private/a.jpg", b"data")
    with proxy_before(moto, make_certificate(tmp_path, ca=False, by=ca)) as proxy:
        for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(name, str(ca[0]))
            options = s3_options(proxy.endpoint, region=f"eu-{name[0].lower()}-1")
            (found,) = Archive(["s3://private"], reading=Reading(storage=options))
            assert fetch(found.uri, 100, options=options).data == b"data"
            target = folder("s3://private/out", options)
            target.write("x", b"1")
            assert target.read("x") == b"1"
            monkeypatch.delenv(name)
        started = time.monotonic()
        with pytest.raises(FetchError, match=r"certificate is not trusted; give .* AWS_CA_BUNDLE"):
            fetch("s3://private/a.jpg", 100, options=s3_options(proxy.endpoint, region="eu-x-1"))
        with pytest.raises(UserError, match="certificate is not trusted"):
            Archive(
                ["s3://private"],
                reading=Reading(storage=s3_options(proxy.endpoint, region="eu-x-1")),
            )
        assert time.monotonic() - started < 5  # no retries


def test_a_certificate_that_signs_itself(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.make_bucket("itself")
    moto.put("s3://itself/a.jpg", b"data")
    for is_ca in (True, False):
        certificate = make_certificate(tmp_path, ca=is_ca)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        with proxy_before(moto, certificate) as proxy:
            if not is_ca:  # what the message says helps
                assert fetch("s3://itself/a.jpg", 100, options=proxy.options).data == b"data"
                continue
            with pytest.raises(FetchError, match=r"is its own CA.*CA:FALSE") as caught:
                fetch("s3://itself/a.jpg", 100, options=proxy.options)
            assert caught.value.of_place


def test_https_where_the_server_speaks_http(moto: MotoServer) -> None:
    options = s3_options(moto.endpoint.replace("http:", "https:"), "us-east-1")
    with pytest.raises(FetchError, match=r"does not speak TLS; check the https://"):
        fetch("s3://itself/a.jpg", 100, options=options)
    with pytest.raises(UserError, match="does not speak TLS"):
        Archive(["s3://itself"], reading=Reading(storage=options))


def test_a_file_of_certificates_that_is_not_there(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(FetchError, match=r"cannot read the certificates in '/nowhere/ca.pem'"):
        fetch("s3://itself/a.jpg", 100, options=s3_options(moto.endpoint, region="nowhere"))


def test_a_proxy_of_the_environment(
    s3: S3Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has a name that only the proxy knows."""
    s3.bucket("proxied")
    s3.put("s3://proxied/a.jpg", b"data")
    monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
    monkeypatch.setenv("http_proxy", proxy.endpoint)
    options = s3_options("http://storage.invalid", "us-east-1")
    (found,) = Archive(["s3://proxied"], reading=Reading(storage=options))
    assert fetch(found.uri, 100, options=options).data == b"data"
    assert proxy.asked["GET", "proxied/a.jpg"] == 1
    monkeypatch.setenv("NO_PROXY", "storage.invalid")
    monkeypatch.setenv("no_proxy", "storage.invalid")
    unproxied = s3_options("http://storage.invalid", "us-east-2")
    with pytest.raises(UserError, match="the server cannot be reached"):
        Archive(["s3://proxied"], reading=Reading(storage=unproxied))


# --- Conditions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 501])
def test_a_server_without_conditional_writes(moto_proxy: Proxy, status: int) -> None:
    moto_proxy.server.make_bucket("conditions")
    bucket, key = moto_proxy.open(f"s3://conditions/{status}")
    version = bucket.write(key, b"1", new=True)
    assert bucket.write(key, b"2", new=True) is None
    assert bucket.write(key, b"2", replacing=version) is not None
    assert bucket.write(key, b"3", replacing=version) is None

    def refuses(method: str, path: str, headers: dict[str, str]) -> int | None:
        return status if {"if-none-match", "if-match"} & headers.keys() else None

    moto_proxy.refuses = refuses
    with pytest.raises(ConditionsError):
        bucket.write(key, b"4", new=True)
    assert bucket.read(key).data == b"2"
    assert bucket.write(key, b"5") is not None


# --- Addresses --------------------------------------------------------------------------------------


class _AnyHost(BaseHTTPRequestHandler):
    """Gives the host and path that it was asked for; some of its headers come twice."""

    def do_GET(self) -> None:
        data = f"{self.headers['Host']}{self.path}".encode()
        self.send_response(200)
        for _ in range(2 if "twice" in self.path else 1):
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Last-Modified", "Fri, 27 Nov 2026 09:09:04 GMT")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def any_host(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A proxy that answers for every host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _AnyHost)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HTTP_PROXY", address)
    monkeypatch.setenv("http_proxy", address)
    yield address
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("style", "asked"),
    [
        ("", "store.invalid/bucket/a.jpg"),
        ("path", "store.invalid/bucket/a.jpg"),
        ("virtual", "bucket.store.invalid/a.jpg"),
    ],
)
@pytest.mark.usefixtures("any_host")
def test_the_addressing_style_of_the_config(
    style: str, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        f"[default]\ns3 =\n  addressing_style = {style}\n" * bool(style)
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    options = s3_options("http://store.invalid", region=f"eu-style{style}-1")
    for key in ("a.jpg", "a//a.jpg"):
        found = fetch(f"S3://bucket/{key}", 1000, options=options).data.decode()
        assert found.removeprefix("store.invalid").endswith(asked.replace("a.jpg", key))


def test_headers_that_come_twice(any_host: str) -> None:
    found = fetch("s3://bucket/twice.jpg", 100, options=s3_options(any_host, "us-east-1"))
    assert found.data.endswith(b"/bucket/twice.jpg")
    assert found.etag


def test_access_points(s3: S3Server) -> None:
    arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/photos"
    bucket = S3Bucket(arn, S3Options(region="eu-west-1"), 1, 1)
    host = "https://photos-123456789012.s3-accesspoint.eu-west-1.amazonaws.com"
    assert bucket._url() == host
    with pytest.raises(UserError, match="names no bucket"):
        Archive(["s3:///x"])


# --- A place where nothing can be read ---------------------------------------------------------------


def first_batch(options: StorageOptions, bucket: str, count: int = 16) -> pa.Table:
    stage = Fetch(100, storage=options, timeout=1)
    stage.setup(Stopwatch())
    uris = [f"s3://{bucket}/{number}.jpg" for number in range(count)]
    return stage(pa.table({"uri": uris}))


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda moto: (moto.options, "nobodys-bucket"), "no such bucket"),
        (
            lambda moto: (s3_options("http://nowhere.invalid", "us-east-1"), "b"),
            "name is unknown|took too long",
        ),
        (lambda moto: (s3_options("http://127.0.0.1:1", "us-east-1"), "b"), "cannot be reached"),
    ],
)
def test_a_run_stops_where_nothing_can_be_read(
    moto: MotoServer, make: Callable[[OnLoopback], tuple[StorageOptions, str]], says: str
) -> None:
    options, bucket = make(moto)
    with pytest.raises(UserError, match=f"none of the first 16 images could be read.*{says}"):
        first_batch(options, bucket)
    rows = first_batch(options, bucket, 3).to_pylist()  # a few images are no place
    assert all(row["status"] in ("not_found", "download_error") for row in rows)


def test_a_run_stops_where_the_credentials_are_refused(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.bucket("mine")
    s3.put("s3://mine/0.jpg", b"data")
    options = s3_options(s3.endpoint, "eu-credentials-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"not-{SECRET_KEY}")
    with pytest.raises(UserError, match="refuses the credentials") as caught:
        first_batch(options, "mine")
    assert SECRET_KEY not in str(caught.value)


def test_missing_images_are_no_reason_to_stop(moto: MotoServer) -> None:
    moto.make_bucket("empty-bucket")
    rows = first_batch(moto.options, "empty-bucket").to_pylist()
    assert {row["status"] for row in rows} == {"not_found"}


# --- Listing ----------------------------------------------------------------------------------------


def test_a_level_of_a_bucket(moto: MotoServer) -> None:
    moto.make_bucket("levels")
    for key in ("b/1", "b/2", "a", "c"):
        moto.put(f"s3://levels/{key}", b"x")
    bucket, _ = moto.open("s3://levels/")
    (page,) = bucket.pages("", folders=True)
    assert [item.key for item in page] == ["a", "b/", "c"]
    assert [type(item) for item in page] == [Object, Prefix, Object]
