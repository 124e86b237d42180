"""Images from the web, of a real server on loopback, and from `data:` URIs."""

import base64
import gzip
import logging
import zlib
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from threading import Event

import pytest

from lib.storage.errors import Fetched, FetchError
from lib.storage.http import fetch_data_uri, fetch_http, forbids_ai
from lib.storage.http_errors import ATTEMPTS
from tests.http_reading import IMAGE, OPEN, failure, got
from tests.http_site import (
    Answer,
    Site,
    body,
    chunked,
    ended,
    http_site,
    redirect,
    reset,
    status,
)
from tests.ray_head import free_port

pytestmark = pytest.mark.usefixtures("afresh")


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
