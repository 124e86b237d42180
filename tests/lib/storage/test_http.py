"""Images from the web, of a real server on loopback."""

import base64
import gzip
import logging
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from lib.common.errors import UserError
from lib.storage import http, http_connections, retry
from lib.storage.errors import Fetched, FetchError
from lib.storage.http import (
    HttpClient,
    HttpOptions,
    fetch_data_uri,
    fetch_http,
    forbids_ai,
    read_range,
)
from lib.storage.http_connections import is_private
from lib.storage.http_errors import ATTEMPTS, NOT_TRUSTED, retry_after_seconds
from tests.http_site import (
    Answer,
    Site,
    WebProxy,
    body,
    chunked,
    http_site,
    redirect,
    status,
    web_proxy,
)
from tests.ray_head import free_port, wait_until

IMAGE = bytes(range(256)) * 100
OPEN = HttpOptions(private=True)


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of this machine, nothing remembered, and pauses a hundredth as long."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0025)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.16)
    yield
    http._clients.clear()
    http_connections._unknown_hosts.clear()


@pytest.fixture
def site() -> Iterator[Site]:
    with http_site() as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[WebProxy]:
    with web_proxy() as running:
        yield running


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Name → its addresses, one set after another; all other names in `.test` are unknown."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *more: Any, **options: Any) -> Any:
        if not host.endswith(".test"):
            return real(host, port, *more, **options)
        asked.append(host)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = known[host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return real(address, port, *more, **options)

    asked: list[str] = []
    known["asked"] = asked
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


def got(
    url: str, timeout: float = 10, max_bytes: int = 10**6, options: HttpOptions = OPEN
) -> bytes:
    return fetch_http(url, max_bytes, options, timeout).data


def failure(
    url: str, timeout: float = 10, max_bytes: int = 10**6, options: HttpOptions = OPEN
) -> tuple[str, str]:
    """Status and message of what cannot be read."""
    with pytest.raises(FetchError) as caught:
        fetch_http(url, max_bytes, options, timeout)
    message = str(caught.value)
    assert "\n" not in message
    assert "SECRET" not in message
    return caught.value.status, message


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "etag"),
    [
        (body(IMAGE, ETag='"a1"'), "a1"),
        (body(IMAGE, ETag='W/"a1"', Last_Modified="yesterday"), "a1"),
        (
            body(IMAGE, Last_Modified="Sat, 01 Jan 2000 00:00:00 GMT"),
            "Sat, 01 Jan 2000 00:00:00 GMT",
        ),
        (body(IMAGE), ""),
        (body(IMAGE, Content_Type="text/html"), ""),
        (chunked(IMAGE[:7], IMAGE[7:]), ""),
        (body(gzip.compress(IMAGE), Content_Encoding="gzip"), ""),
        (body(zlib.compress(IMAGE), Content_Encoding="deflate"), ""),
        (chunked(gzip.compress(IMAGE), Content_Encoding="gzip"), ""),
    ],
)
def test_the_bytes_and_the_etag(site: Site, answer: Answer, etag: str) -> None:
    assert fetch_http(site.serve("/a.jpg", answer), 10**6, OPEN, 10) == Fetched(IMAGE, etag)


def test_what_a_request_says(site: Site) -> None:
    assert got(site.serve("/a.jpg", body(IMAGE, Set_Cookie="id=1")) + "?size=1#face") == IMAGE
    got(site.url("/a.jpg"))
    (path, headers), (_, later) = site.requests
    assert path == "/a.jpg?size=1"
    assert headers["User-Agent"].startswith("face-archive-labels/")
    assert headers["Accept-Encoding"] == "identity"
    assert later["Cookie"] is None
    assert headers["Authorization"] is None


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/ä/Łódź 1.jpg?q=ü&b", "/%C3%A4/%C5%81%C3%B3d%C5%BA%201.jpg?q=%C3%BC&b"),
        ("/a%20b%2f.jpg", "/a%20b%2F.jpg"),
        ("/100%.jpg", "/100%25.jpg"),
        ("/a/../b/./c.jpg?signed=1", "/a/../b/./c.jpg?signed=1"),
        ("/a\r\nX-Injected: 1", "/a%0D%0AX-Injected:%201"),
        ("?q", "/?q"),
        ("", "/"),
    ],
)
def test_paths_of_all_kinds(site: Site, path: str, sent: str) -> None:
    site.serve(sent.partition("?")[0], body(IMAGE))
    assert got(site.url(path)) == IMAGE
    assert [path for path, _ in site.requests] == [sent]


def test_a_host_in_another_alphabet(site: Site, names: dict[str, list[str]]) -> None:
    site.serve("/a.jpg", body(IMAGE))
    names["xn--bcher-kva.test"] = ["127.0.0.1"]
    assert got(site.url("/a.jpg", "Bücher.test")) == IMAGE
    assert site.requests[0][1]["Host"] == f"xn--bcher-kva.test:{site.port}"


def test_user_and_password_are_sent(site: Site) -> None:
    site.serve("/a.jpg", body(IMAGE))
    assert got(site.url("/a.jpg", user="me:p%40ss ü@")) == IMAGE
    sent = site.requests[0][1]["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "me:p@ss ü"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.jpg",
        "http://[::1/a.jpg",
        "http://host:port/a.jpg",
        "http://host:99999/a.jpg",
        "http://a b/a.jpg",
        "http://.../a.jpg",
        "http://" + "a" * 70 + ".org/",
        "ftp://host/a.jpg",
        "a.jpg",
        "http:/a.jpg",
    ],
)
def test_impossible_urls(url: str) -> None:
    assert failure(url)[0] == "download_error"


# --- statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected", "requests"),
    [
        (404, "not_found", 1),
        (410, "not_found", 1),
        (401, "access_denied", 1),
        (403, "access_denied", 1),
        (451, "access_denied", 1),
        (400, "download_error", 1),
        (204, "download_error", 1),
        (206, "download_error", 1),
        (304, "download_error", 1),
        (302, "download_error", 1),  # without a Location
        (500, "download_error", ATTEMPTS),
        (503, "download_error", ATTEMPTS),
        (429, "download_error", ATTEMPTS),
        (408, "download_error", ATTEMPTS),
    ],
)
def test_statuses(
    site: Site, code: int, expected: str, requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    answer = body(b"", code) if code in (204, 304) else status(code)
    site.serve("/a.jpg", answer)
    found, message = failure(site.url("/a.jpg?token=SECRET", user="me:SECRET@"))
    assert found == expected
    assert str(code) in message
    assert str(site.port) not in message
    assert len(site.requests) == requests
    assert not caplog.records


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Close without the usual goodbye."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.rfile.close()
    handler.wfile.close()
    handler.connection.close()


def ended(answer: Answer) -> Answer:
    """An answer after which the connection ends."""

    def then_end(handler: BaseHTTPRequestHandler) -> None:
        answer(handler)
        handler.close_connection = True

    return then_end


def test_what_passes_is_tried_again(site: Site) -> None:
    short = ended(body(IMAGE[:9], Content_Length="10"))
    assert got(site.serve("/a.jpg", status(503), reset, short, body(IMAGE))) == IMAGE


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reset, "was reset"),
        (ended(body(IMAGE, Content_Length=str(len(IMAGE) + 1))), "before all bytes"),
        (ended(body(b"", Content_Length="10")), "before all bytes"),
        (chunked(IMAGE, end=b""), "before all bytes"),
        (chunked(IMAGE, end=b"100\r\nfew"), "before all bytes"),
    ],
)
def test_a_connection_that_ends_early(site: Site, answer: Answer, said: str) -> None:
    found, message = failure(site.serve("/a.jpg", answer))
    assert (found, len(site.requests)) == ("download_error", ATTEMPTS)
    assert said in message
    assert f"(tried {ATTEMPTS} times)" in message


def test_a_port_where_nobody_listens(names: dict[str, list[str]]) -> None:
    names["closed.test"] = ["127.0.0.1"]
    assert failure(f"http://closed.test:{free_port()}/") == (
        "download_error",
        "the server refuses connections (tried 3 times)",
    )
    assert names["asked"] == ["closed.test"] * 3


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        body(IMAGE),
        chunked(IMAGE),
        body(gzip.compress(IMAGE), Content_Encoding="gzip"),
        chunked(*[gzip.compress(bytes(10**8))], Content_Encoding="gzip"),
        body(gzip.compress(gzip.compress(bytes(10**8))), Content_Encoding="gzip, gzip"),
    ],
    ids=["said", "counted", "packed", "bomb", "bomb in a bomb"],
)
def test_too_large(site: Site, answer: Answer) -> None:
    url = site.serve("/a.jpg", answer)
    found, message = failure(url, max_bytes=len(IMAGE) - 1)
    assert found == "too_large"
    assert str(len(IMAGE) - 1) in message
    site.serve("/b.jpg", body(b"next"))
    assert got(site.url("/b.jpg")) == b"next"


def test_as_large_as_the_limit(site: Site) -> None:
    for answer in (
        body(IMAGE),
        chunked(IMAGE),
        chunked(gzip.compress(IMAGE), Content_Encoding="gzip"),
    ):
        assert got(site.serve("/a.jpg", answer), max_bytes=len(IMAGE)) == IMAGE


def test_what_is_not_packed_as_it_says(site: Site) -> None:
    url = site.serve("/a.jpg", body(IMAGE, Content_Encoding="gzip"))
    assert failure(url) == ("download_error", "the answer is not in its Content-Encoding")


@pytest.mark.parametrize("garbage", [b"\r\n", b"x" * 100, IMAGE * 10, b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_body_longer_than_said(site: Site, garbage: bytes) -> None:
    url = site.serve("/long.jpg", body(IMAGE + garbage, Content_Length=str(len(IMAGE))))
    short = site.serve("/short.jpg", body(b"ab" + garbage, Content_Length="2"))
    site.serve("/next.jpg", body(b"the next one"))
    for _ in range(5):
        assert got(url) == IMAGE
        assert got(site.url("/next.jpg")) == b"the next one"
        assert got(short) == b"ab"
        assert got(site.url("/next.jpg")) == b"the next one"


def test_a_body_longer_than_said_whose_rest_comes_late(site: Site) -> None:
    read, written = Event(), Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body(IMAGE)(handler)
        read.wait(10)
        handler.wfile.write(b"the rest\r\n")
        written.set()

    url = site.serve("/long.jpg", answer)
    site.serve("/next.jpg", body(b"the next one"))
    assert got(url) == IMAGE
    read.set()
    assert got(site.url("/next.jpg")) == b"the next one"
    assert written.wait(10)
    assert got(site.url("/next.jpg")) == b"the next one"


@pytest.mark.parametrize("first", [body(IMAGE), chunked(IMAGE), status(404), redirect("/b.jpg")])
def test_connections_are_used_again(site: Site, first: Answer) -> None:
    site.serve("/a.jpg", first)
    site.serve("/b.jpg", body(IMAGE))
    for path in ("/a.jpg", "/b.jpg", "/a.jpg"):
        with suppress(FetchError):
            got(site.url(path))
    assert (len(site.requests), site.connections) in ((3, 1), (5, 1))


# --- time -----------------------------------------------------------------------------------------


def drip(head: bytes, drop: bytes, gone: Event) -> Answer:
    """Answer with a beginning, then ten bytes a second until the client or the test is gone."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        while not gone.wait(0.1):
            handler.wfile.write(drop)

    return answer


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 302 OK\r\nLocation: /b\r\nContent-Length: 1000\r\n\r\n", b"x"),
    ],
)
def test_a_slow_answer_ends(site: Site, head: bytes, drop: bytes) -> None:
    gone = Event()
    url = site.serve("/a.jpg", drip(head, drop, gone))
    started = time.monotonic()
    try:
        found, message = failure(url, timeout=0.4)
    finally:
        gone.set()
    assert (found, message) == ("download_error", "the server took too long (tried 2 times)")
    assert 0.8 <= time.monotonic() - started < 5


def test_a_slow_redirect_takes_of_the_same_time(site: Site) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        redirect("/a.jpg")(handler)

    started = time.monotonic()
    assert "too long" in failure(site.serve("/a.jpg", slow), timeout=0.5)[1]
    assert time.monotonic() - started < 5
    assert len(site.requests) == 4


def test_a_large_body_may_take_longer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times as fast as asked for, in more than twice the timeout."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        for _ in range(10):
            time.sleep(0.1)
            handler.wfile.write(b"x" * 1000)

    url = site.serve("/a.jpg", answer)
    assert "too long" in failure(url, timeout=0.4)[1]
    monkeypatch.setattr(http_connections, "SLOWEST_BYTES_A_SECOND", 1000)
    assert got(url, timeout=0.4) == b"x" * 10000


@pytest.mark.parametrize(
    "value", ["1", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"]
)
@pytest.mark.parametrize("code", [429, 503])
def test_the_server_says_when_to_come_again(
    site: Site, code: int, value: str | Callable[[], str]
) -> None:
    said = value if isinstance(value, str) else value()
    url = site.serve("/a.jpg", status(code, Retry_After=said), body(IMAGE))
    started = time.monotonic()
    assert got(url) == IMAGE
    assert 0.9 <= time.monotonic() - started < 5


def test_a_server_that_wants_to_be_left_alone(site: Site) -> None:
    url = site.serve("/a.jpg", status(429, Retry_After="3600"))
    found, message = failure(url)
    assert (found, len(site.requests)) == ("download_error", 1)
    assert "429 and asks to wait 3600 s" in message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), (" 7 ", 7), ("-1", 0), ("soon", 0), ("", 0), ("Sat, 01 Jan 2000 00:00:00 GMT", 0)],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after_seconds(value) == seconds


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects(site: Site, code: int) -> None:
    site.serve("/b/%C3%A4.jpg", body(IMAGE))
    site.serve("/a/c.jpg", redirect("../b/ä.jpg".encode().decode("latin-1"), code))
    assert got(site.url("/a/c.jpg#x")) == IMAGE


def test_too_many_redirects(site: Site) -> None:
    for number in range(7):
        site.serve(f"/{number}", redirect(f"/{number + 1}"))
    site.serve("/6", body(IMAGE))
    assert got(site.url("/1")) == IMAGE
    assert failure(site.url("/0")) == ("download_error", "more than 5 redirects")
    assert failure(site.serve("/loop", redirect("/loop")))[1] == "more than 5 redirects"


@pytest.mark.parametrize("location", ["ftp://host/SECRET", "file:///etc/SECRET", "http://[SECRET"])
def test_a_redirect_to_nowhere(site: Site, location: str) -> None:
    found, message = failure(site.serve("/a.jpg", redirect(location)))
    assert found == "download_error"
    assert message.startswith("a redirect to ")
    assert len(site.requests) == 1


def test_a_password_goes_to_its_own_server_only(site: Site) -> None:
    with http_site() as other:
        other.serve("/a.jpg", body(IMAGE))
        site.serve("/a.jpg", redirect("/b.jpg"))
        site.serve("/b.jpg", redirect(other.url("/a.jpg")))
        assert got(site.url("/a.jpg", user="me:pw@")) == IMAGE
        assert [headers["Authorization"] for _, headers in site.requests] == ["Basic bWU6cHc="] * 2
        assert other.requests[0][1]["Authorization"] is None


# --- robots ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "forbidden"),
    [
        (["noai"], True),
        (["noindex, NoImageAI"], True),
        (["noindex", "noai"], True),
        (["face-archive-labels: noindex, noai"], True),
        (["*: noai"], True),
        (["max-snippet: 5, noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["googlebot: noai"], False),
        (["googlebot: noindex, noai"], False),
        (["googlebot: noindex, face-archive-labels: noai"], True),
        (["noindex, noimageindex"], False),
        (["noaircraft"], False),
        ([], False),
    ],
)
def test_x_robots_tag(tags: list[str], forbidden: bool) -> None:
    assert forbids_ai(tags) is forbidden


def test_a_server_that_forbids_ai(site: Site) -> None:
    url = site.serve("/a.jpg", body(IMAGE, X_Robots_Tag="noindex", x_robots_tag="noai"))
    assert failure(url) == (
        "access_denied",
        "the server asks not to use it for AI (X-Robots-Tag)",
    )
    assert got(url, options=replace(OPEN, ignore_robots=True)) == IMAGE


# --- private addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("169.254.169.254", True),
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("240.0.0.1", True),
        ("255.255.255.255", True),
        ("::1", True),
        ("::", True),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fc00::1", True),
        ("fd12:3456::1", True),
        ("fec0::1", True),
        ("ff02::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("::127.0.0.1", True),
        ("64:ff9b::169.254.169.254", True),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b:1::1", True),
        ("2002:7f00:1::1", True),
        ("8.8.8.8", False),
        ("100.128.0.1", False),
        ("172.32.0.1", False),
        ("::ffff:8.8.8.8", False),
        ("64:ff9b::808:808", False),
        ("2606:4700::1111", False),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    assert is_private(address) is private


REFUSED = ("access_denied", "a private address; --http.private reads it")
GUARDED = HttpOptions()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001"])
def test_a_private_address_is_not_connected_to(site: Site, host: str) -> None:
    site.serve("/a.jpg", body(IMAGE))
    assert failure(site.url("/a.jpg", host), options=GUARDED) == REFUSED
    assert failure(site.url("/a.jpg", host).replace("http", "https"), options=GUARDED) == REFUSED
    assert site.connections == 0


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only 127.0.0.2 is private."""
    monkeypatch.setattr(http_connections, "is_private", lambda address: address == "127.0.0.2")


@pytest.mark.usefixtures("outside")
def test_a_redirect_to_a_private_address_is_refused(
    site: Site, names: dict[str, list[str]]
) -> None:
    names["inside.test"] = ["127.0.0.2"]
    with http_site("127.0.0.2") as inside:
        inside.serve("/a.jpg", body(IMAGE))
        for location in (inside.url("/a.jpg"), inside.url("/a.jpg", "inside.test")):
            url = site.serve("/a.jpg", redirect(location))
            assert failure(url, options=GUARDED) == REFUSED
        assert inside.connections == 0
        assert got(url) == IMAGE


@pytest.mark.usefixtures("outside")
def test_a_name_whose_address_becomes_private(names: dict[str, list[str]]) -> None:
    """Every address that is connected to is the one that was checked."""
    with http_site("127.0.0.2") as inside:
        inside.serve("/a.jpg", body(IMAGE))
        names["rebinding.test"] = ["127.0.0.1", "127.0.0.2"]
        assert failure(inside.url("/a.jpg", "rebinding.test"), options=GUARDED) == REFUSED
        assert inside.connections == 0
        assert names["asked"] == ["rebinding.test"] * 2


# --- names ----------------------------------------------------------------------------------------

UNKNOWN = ("download_error", "the server's name is unknown to DNS")


def test_an_unknown_host_is_remembered(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert failure("http://nowhere.test/") == UNKNOWN
    assert names["asked"] == ["nowhere.test"]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 599)
    assert failure("http://nowhere.test/") == UNKNOWN
    assert names["asked"] == ["nowhere.test"]
    monkeypatch.setattr(time, "monotonic", lambda: now + 601)
    assert failure("http://nowhere.test/") == UNKNOWN
    assert names["asked"] == ["nowhere.test"] * 2


@pytest.mark.usefixtures("names")
def test_few_unknown_hosts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "MOST_UNKNOWN_HOSTS", 3)
    for number in range(5):
        failure(f"http://n{number}.test/")
    assert list(http_connections._unknown_hosts) == ["n2.test", "n3.test", "n4.test"]


def test_a_resolver_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert failure("http://somewhere.test/") == (
        "download_error",
        "the server's name cannot be resolved now (tried 2 times)",
    )
    assert not http_connections._unknown_hosts


# --- connections to one host ----------------------------------------------------------------------


def test_connections_to_one_host_are_limited(site: Site) -> None:
    gate = Event()

    def held(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(10)
        body(IMAGE)(handler)

    url = site.serve("/a.jpg", held)
    with ThreadPoolExecutor(12) as threads:
        reads = [threads.submit(got, url, options=replace(OPEN, per_host=3)) for _ in range(12)]
        wait_until(lambda: site.busy["127.0.0.1"] == 3, 10)
        gate.set()
        assert all(read.result() == IMAGE for read in reads)
    assert site.most["127.0.0.1"] == 3
    assert site.connections == 3


def test_more_hosts_than_pools_keep_the_limit(
    site: Site, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connections, "POOLS", 1)
    hosts = [f"h{number}.test" for number in range(4)]
    for host in hosts:
        names[host] = ["127.0.0.1"]
    gate = Event()

    def held(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(10)
        body(IMAGE)(handler)

    site.serve("/a.jpg", held)
    few = replace(OPEN, per_host=2)
    with ThreadPoolExecutor(24) as threads:
        urls = [site.url("/a.jpg", host) for host in hosts] * 6
        reads = [threads.submit(got, url, options=few) for url in urls]
        wait_until(lambda: all(site.busy[host] == 2 for host in hosts), 10)
        gate.set()
        assert all(read.result() == IMAGE for read in reads)
    assert {site.most[host] for host in hosts} == {2}
    assert not http.client(few)._slots._busy


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"--http\.per-host must be at least 1, not 0"):
        HttpOptions(per_host=0).check()
    HttpOptions().check()


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for 127.0.0.1, which is its own CA, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not here")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:site.test"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "ca.pem"


@pytest.fixture
def tls_site(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with http_site(tls=context) as running:
        running.serve("/a.jpg", body(IMAGE))
        yield running


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_of_ones_own(
    tls_site: Site, certificate: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    for _ in range(3):
        assert got(tls_site.url("/a.jpg")) == IMAGE
    assert tls_site.connections == 1


def test_an_untrusted_certificate(tls_site: Site) -> None:
    assert failure(tls_site.url("/a.jpg")) == ("download_error", NOT_TRUSTED)
    assert tls_site.connections == 1
    assert tls_site.requests == []


def test_a_certificate_of_another_host(
    tls_site: Site, certificate: Path, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names["site.test"] = names["other.test"] = ["127.0.0.1"]
    assert got(tls_site.url("/a.jpg", "site.test")) == IMAGE
    assert failure(tls_site.url("/a.jpg", "other.test")) == (
        "download_error",
        "the server's certificate is for another host",
    )


def test_certificates_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "none.pem"))
    found, message = failure("https://127.0.0.1/")
    assert found == "download_error"
    assert message.endswith("none.pem; correct CURL_CA_BUNDLE")


def test_a_slow_answer_over_tls_ends(
    tls_site: Site, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    gone = Event()
    url = tls_site.serve(
        "/s.jpg", drip(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"x", gone)
    )
    try:
        assert failure(url, timeout=0.5)[1] == "the server took too long (tried 2 times)"
    finally:
        gone.set()


def test_a_server_that_does_not_shake_hands(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert failure(url, timeout=0.4)[1] == "the server took too long (tried 2 times)"
    assert "TLS with the server fails" in failure(site.url("/").replace("http", "https"))[1]


# --- proxies --------------------------------------------------------------------------------------


@pytest.fixture
def through(proxy: WebProxy, monkeypatch: pytest.MonkeyPatch) -> WebProxy:
    monkeypatch.setenv("ALL_PROXY", f"http://me:pw@127.0.0.1:{proxy.port}")
    return proxy


@pytest.mark.usefixtures("names")
def test_a_proxy(site: Site, through: WebProxy) -> None:
    """The name is known to the proxy only, and the proxy's own address is private."""
    site.serve("/a.jpg", body(IMAGE))
    url = site.url("/a.jpg?q=1", "inside.test")
    assert got(url, options=GUARDED) == IMAGE
    assert through.asked == [f"GET {url}"]
    assert through.headers[0]["Proxy-Authorization"] == "Basic bWU6cHc="
    assert site.requests[0][1]["Host"] == f"inside.test:{site.port}"


@pytest.mark.usefixtures("names")
def test_a_tunnel(
    tls_site: Site, through: WebProxy, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for _ in range(2):
        assert got(tls_site.url("/a.jpg", "site.test"), options=GUARDED) == IMAGE
    assert through.asked == [f"CONNECT site.test:{tls_site.port}"]
    assert tls_site.requests[0][1]["Proxy-Authorization"] is None


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_private_address_behind_a_proxy(
    through: WebProxy, names: dict[str, list[str]], scheme: str
) -> None:
    names["inside.test"] = ["127.0.0.1"]
    for host in ("127.0.0.1", "[::1]", "169.254.169.254", "inside.test"):
        assert failure(f"{scheme}://{host}/a.jpg", options=GUARDED) == REFUSED
    assert through.asked == []


def test_hosts_without_a_proxy(
    site: Site, through: WebProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.1")
    assert got(site.serve("/a.jpg", body(IMAGE))) == IMAGE
    assert failure(site.url("/a.jpg"), options=GUARDED) == REFUSED
    assert through.asked == []


@pytest.mark.usefixtures("names")
def test_a_proxy_that_fails(through: WebProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    through.refuse = 407
    assert failure("https://inside.test/")[1] == (
        "the proxy cannot connect to the server (tried 3 times)"
    )
    assert failure("http://inside.test/")[1] == "the server answered 407"
    for proxy, said in (
        (f"http://127.0.0.1:{free_port()}", "the proxy refuses connections (tried 3 times)"),
        ("http://nowhere.test:3128", "the proxy's name is unknown to DNS"),
        ("socks5://me:SECRET@127.0.0.1", "is no http:// URL"),
        ("http://me:SECRET@[", "is no http:// URL"),
    ):
        http._clients.clear()
        monkeypatch.setenv("ALL_PROXY", proxy)
        for url in ("http://inside.test/", "https://inside.test/"):
            found, message = failure(url)
            assert found == "download_error"
            assert message.endswith(said)


def test_a_proxy_that_stalls(through: WebProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("ALL_PROXY", f"127.0.0.1:{silent.getsockname()[1]}")
        for url in ("http://host.test/", "https://host.test/"):
            assert "too long (tried 2 times)" in failure(url, timeout=0.4)[1]
    assert through.asked == []


# --- ranges ---------------------------------------------------------------------------------------


def ranged(code: int, shown: str | None = None, data: bytes | None = None) -> Answer:
    """Answer with a range as a server that says it so."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        said = f"bytes {first}-{last}/{len(IMAGE)}" if shown is None else shown
        sent = IMAGE[first : last + 1] if data is None else data
        body(sent, code, **({"Content_Range": said} if said else {}))(handler)

    return answer


@pytest.mark.parametrize("answer", [ranged(206), ranged(206, ""), ranged(200)])
def test_a_range(site: Site, answer: Answer) -> None:
    url = site.serve("/a.tar", status(503), answer)
    assert read_range(url, 1000, 500, 10, {"X-Key": "1"}) == IMAGE[1000:1500]
    assert site.requests[-1][1]["X-Key"] == "1"
    assert read_range(url, 5, 0, 10) == b""
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ranged(200, "", IMAGE), "download_error"),
        (ranged(200, "bytes 0-499/25600"), "download_error"),
        (ranged(206, "bytes 0-499/25600"), "download_error"),
        (ranged(206, "", b"short"), "download_error"),
        (ranged(206, "", IMAGE), "too_large"),
        (status(416), "download_error"),
        (status(403), "access_denied"),
        (status(404), "not_found"),
    ],
)
def test_another_range(site: Site, answer: Answer, expected: str) -> None:
    with pytest.raises(FetchError) as caught:
        read_range(site.serve("/a.tar", answer), 1000, 500, 10)
    assert caught.value.status == expected
    assert len(site.requests) == 1


def test_a_range_of_a_packed_file_is_not_unpacked(site: Site) -> None:
    packed = gzip.compress(IMAGE)[:100]
    url = site.serve("/a.gz", body(packed, 206, Content_Encoding="gzip", X_Robots_Tag="noai"))
    assert read_range(url, 0, 100, 10) == packed


def test_headers_of_a_range_go_to_its_own_server_only(site: Site) -> None:
    with http_site() as other:
        other.serve("/a.tar", ranged(206))
        url = site.serve("/a.tar", redirect(other.url("/a.tar")))
        assert read_range(url, 0, 5, 10, {"X-Key": "1"}) == IMAGE[:5]
        assert other.requests[0][1]["X-Key"] is None


# --- data: URIs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "data"),
    [
        ("data:image/png;base64," + base64.b64encode(IMAGE).decode(), IMAGE),
        ("DATA:;BASE64,YWI=", b"ab"),
        ("data:;base64,YWI", b"ab"),
        ("data:;base64,Y%57I%3D", b"ab"),
        ("data:;base64,Y W\nI=", b"ab"),
        ("data:image/png,%89PNG%0d%0A", b"\x89PNG\r\n"),
        ("data:,a,b#fragment", b"a,b"),
        ("data:,", b""),
    ],
)
def test_data_uris(uri: str, data: bytes) -> None:
    assert fetch_data_uri(uri, len(data)) == Fetched(data, "")
    if data:
        with pytest.raises(FetchError) as caught:
            fetch_data_uri(uri, len(data) - 1)
        assert caught.value.status == "too_large"


@pytest.mark.parametrize("uri", ["data:image/png;base64", "data:;base64,SECRET!", "data:;base64,A"])
def test_impossible_data_uris(uri: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_data_uri(uri, 100)
    assert caught.value.status == "download_error"
    assert "SECRET" not in str(caught.value)


def test_threads_share_a_client(site: Site) -> None:
    """Every thread gets the image that it asked for."""
    for number in range(20):
        site.serve(f"/{number}.jpg", body(bytes([number]) * 5000))
    client = HttpClient(OPEN)
    wrong = []

    def read(number: int) -> None:
        for _ in range(10):
            if client.fetch(site.url(f"/{number}.jpg"), 10**6, 10).data != bytes([number]) * 5000:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(site.requests) == 200
    assert site.connections <= OPEN.per_host
