"""How long reading from the web takes: slow servers, and servers that say when to come again."""

import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from threading import Event

import pytest

from lib.storage import http_connections
from lib.storage.http_errors import retry_after_seconds
from tests.http_reading import IMAGE, failure, got
from tests.http_site import (
    Site,
    body,
    drip,
    redirect,
    status,
)

pytestmark = pytest.mark.usefixtures("afresh")


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
        time.sleep(0.6)
        redirect("/a.jpg")(handler)

    started = time.monotonic()
    assert "too long" in failure(site.serve("/a.jpg", slow), timeout=1)[1]
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
