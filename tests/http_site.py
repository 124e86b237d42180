"""A real web server on loopback whose answers a test writes, and a real proxy."""

import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """A running server.

    Attributes:
        port: where it listens.
        answers: path → what answers it, one after another, the last one for ever.
        requests: path with its query string, and headers, of every request.
        connections: how many were accepted.
        busy: host → requests that are being answered.
        most: host → the most of them at a time.
    """

    port: int = 0
    address: str = "127.0.0.1"
    scheme: str = "http"
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, Message]] = field(default_factory=list)
    connections: int = 0
    busy: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    def url(self, path: str, host: str = "", user: str = "") -> str:
        """The URL of a path, under another name of the host if one is given."""
        return f"{self.scheme}://{user}{host or self.address}:{self.port}{path}"

    def serve(self, path: str, *answers: Answer) -> str:
        """Set the answers of a path; its URL."""
        self.answers[path] = [*answers]
        return self.url(path)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        host = handler.headers.get("Host", "").partition(":")[0]
        with self.lock:
            self.requests.append((handler.path, handler.headers))
            answers = self.answers.get(urlsplit(handler.path).path, [status(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            self.busy[host] += 1
            self.most[host] = max(self.most[host], self.busy[host])
        try:
            answer(handler)
        finally:
            with self.lock:
                self.busy[host] -= 1


def body(data: bytes, code: int = 200, **headers: str) -> Answer:
    """Answer with bytes; underscores in the names of headers are dashes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(data)), **given}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and a page that repeats what must stay secret."""
    return body(b"<p>SECRET", code, **headers)


def redirect(location: str, code: int = 302) -> Answer:
    """Answer that it is elsewhere."""
    return body(b"moved", code, Location=location)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", **headers: str) -> Answer:
    """Answer with bytes whose number is not said before."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        handler.wfile.write(end)
        handler.close_connection = end != b"0\r\n\r\n"

    return answer


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


def drip(head: bytes, drop: bytes, gone: Event) -> Answer:
    """Answer with a beginning, then ten bytes a second until the client or the test is gone."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        while not gone.wait(0.1):
            handler.wfile.write(drop)

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    site: Site

    def get_request(self) -> tuple[Any, Any]:
        found = super().get_request()
        self.site.connections += 1
        return found

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no error here."""


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """Run a server in a thread."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def http_site(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run a server, over TLS if there is a context for that."""
    site = Site(address=address, scheme="http" if tls is None else "https")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: object) -> None:
            """Nothing to the terminal."""

    server = _Server((address, 0), Handler)
    server.site = site
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    site.port = server.server_address[1]
    with running(server):
        yield site


@dataclass
class WebProxy:
    """A running proxy, for which every name is this machine.

    Attributes:
        port: where it listens.
        asked: what was asked for: `CONNECT host:port`, or `GET` and a URL.
        headers: of those requests.
        refuse: the status of every answer; 0 to do what is asked for.
    """

    port: int = 0
    asked: list[str] = field(default_factory=list)
    headers: list[Message] = field(default_factory=list)
    refuse: int = 0


@contextmanager
def web_proxy() -> Iterator[WebProxy]:
    """Run a proxy."""
    proxy = WebProxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def parse_request(self) -> bool:
            parsed = super().parse_request()
            proxy.asked.append(f"{self.command} {self.path}")
            proxy.headers.append(self.headers)
            return parsed

        def do_CONNECT(self) -> None:
            self.close_connection = True
            if proxy.refuse:
                self.send_error(proxy.refuse)
                return
            with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as far:
                self.send_response(200)
                self.end_headers()
                there = Thread(target=_pump, args=(self.connection, far), daemon=True)
                there.start()
                _pump(far, self.connection)

        def do_GET(self) -> None:
            if proxy.refuse:
                self.send_error(proxy.refuse)
                return
            url = urlsplit(self.path)
            upstream = HTTPConnection("127.0.0.1", url.port or 80, timeout=30)
            path = f"{url.path}?{url.query}" if url.query else url.path
            upstream.request("GET", path, headers=dict(self.headers))
            got = upstream.getresponse()
            body(got.read(), got.status)(self)
            upstream.close()

        def log_message(self, *_: object) -> None:
            """Nothing to the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.port = server.server_address[1]
    with running(server):
        yield proxy


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
