"""Real S3 servers on loopback (rclone, moto), and a proxy before it that makes it fail on purpose."""

import http.client
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import boto3

from lib.storage.bucket import Bucket
from lib.storage.buckets import open_bucket
from lib.storage.options import S3Options, StorageOptions
from tests.ray_head import free_port, wait_until

RCLONE = str(Path(sys.executable).parent / "rclone")
ACCESS_KEY = "TESTACCESSKEY0123456"
SECRET_KEY = "test-secret-key-that-must-never-be-seen"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a process needs to use the server; where it is comes as an option."""

Fault = Literal["503", "403", "404", "reset", "stall", "truncate", "hang"]
Rule = Callable[[str, str, int], Fault | None]
"""Method, bucket/key and how often that was asked for before → what goes wrong this time."""


def s3_options(
    endpoint: str | None = None, region: str | None = None, **more: Any
) -> StorageOptions:
    """Storage options of which those of S3 are given."""
    return StorageOptions(S3Options(endpoint, region, **more))


class OnLoopback:
    """What answers as S3 at a port of this machine."""

    port: int
    scheme: str = "http"

    def open(self, uri: str) -> tuple[Bucket, str]:
        """The bucket of a URI and the key in it."""
        return open_bucket(uri, self.options)

    def make_bucket(self, name: str) -> None:
        """Make a bucket, if it is not there."""
        boto = self.boto()
        if name not in {bucket["Name"] for bucket in boto.list_buckets()["Buckets"]}:
            boto.create_bucket(Bucket=name)

    def put(self, uri: str, data: bytes) -> None:
        """Write an object."""
        bucket, key = self.open(uri)
        bucket.write(key, data)

    def boto(self) -> Any:
        """A client of boto3."""
        return boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(self._answers, 60)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    @property
    def endpoint(self) -> str:
        """For the option `--s3.endpoint`."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def options(self) -> StorageOptions:
        """For code that takes the options."""
        return s3_options(self.endpoint, "us-east-1")


@dataclass
class S3Server(OnLoopback):
    """A running server. Buckets are the folders of `root`."""

    root: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.process = subprocess.Popen(
            [
                *(RCLONE, "serve", "s3", str(self.root), "--addr", f"127.0.0.1:{self.port}"),
                *("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "off"),
                *("--config", ""),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait()

    def kill(self) -> None:
        """Stop at once; connections break."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def bucket(self, name: str) -> Path:
        """The folder of a bucket, made if it is not there.

        The server remembers what it has listed: put files there before that, and later with `put`.
        """
        folder = self.root / name
        if not folder.exists():
            self.make_bucket(name)
        return folder


@dataclass
class MotoServer(OnLoopback):
    """A server that answers ranges and conditions as AWS does; it holds everything in memory."""

    port: int


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """Run it."""
    server = MotoServer(free_port())
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server.wait()
        yield server
    finally:
        process.kill()
        process.wait()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server on an empty folder."""
    with tempfile.TemporaryDirectory(prefix="s3-") as folder:
        server = S3Server(Path(folder), free_port())
        server.start()
        try:
            yield server
        finally:
            server.kill()


@dataclass
class Proxy(OnLoopback):
    """Passes requests on to a server, except where the rule says what is to go wrong.

    Attributes:
        server: behind it.
        port: where it listens.
        rule: what goes wrong when.
        asked: how often each (method, bucket/key) was asked for.
        faults: how often each fault was made.
        hanging: set when a request hangs, which it does until it is released.
        look: is shown the headers of every request, their names in lower case.
        conditional: check `If-None-Match` and `If-Match`, as S3 does and rclone does not.
        refuses: is shown method, bucket/key?query and headers; gives a status to refuse a request with.
    """

    server: OnLoopback
    port: int
    rule: Rule = lambda method, key, times: None
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    hanging: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)
    look: Callable[[dict[str, str]], None] = lambda headers: None
    conditional: bool = False
    refuses: Callable[[str, str, dict[str, str]], int | None] = lambda method, path, headers: None
    lock: Lock = field(default_factory=Lock)
    scheme: str = "http"

    def reset(self) -> None:
        """Let go of what hangs, and forget everything."""
        self.released.set()
        fresh = Proxy(self.server, self.port)
        with self.lock:
            for name in (
                "rule",
                "asked",
                "faults",
                "hanging",
                "released",
                "look",
                "conditional",
                "refuses",
            ):
                setattr(self, name, getattr(fresh, name))

    def fault(self, method: str, key: str) -> Fault | None:
        """Count a request; what is to go wrong with it."""
        with self.lock:
            times = self.asked[method, key]
            self.asked[method, key] += 1
            fault = self.rule(method, key, times)
            if fault is not None:
                self.faults[fault] += 1
        return fault

    def holds(self, key: str, headers: Message) -> bool:
        """Whether the conditions of a write hold."""
        none, match = headers.get("If-None-Match"), headers.get("If-Match")
        if none is None and match is None:
            return True
        bucket, name = self.server.open(f"s3://{key}")
        try:
            etag = bucket.head(name).etag
        except FileNotFoundError:
            etag = None
        return etag is None if none is not None else etag == (match or "").strip('"')


@contextmanager
def proxy_before(
    server: OnLoopback, certificate: tuple[Path, Path] | None = None
) -> Iterator[Proxy]:
    """Run a proxy; with files of a certificate and its key, one that speaks TLS."""
    proxy = Proxy(server, 0, scheme="http" if certificate is None else "https")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(proxy))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        httpd.socket = context.wrap_socket(
            httpd.socket, server_side=True, do_handshake_on_connect=False
        )
    httpd.daemon_threads = True
    proxy.port = httpd.server_address[1]
    thread = Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        httpd.shutdown()
        httpd.server_close()


def _handler_for(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = unquote(urlsplit(self.path).path).lstrip("/")
            headers = {name.lower(): value for name, value in self.headers.items()}
            proxy.look(headers)
            if (status := proxy.refuses(self.command, unquote(self.path), headers)) is not None:
                self._refuse(status)
                return
            fault = proxy.fault(self.command, key)
            if fault in ("503", "403", "404"):
                self._refuse(int(fault))
                return
            if fault == "hang":
                proxy.hanging.set()
                proxy.released.wait(120)
            if self.command == "PUT" and proxy.conditional:
                with proxy.lock:
                    if not proxy.holds(key, self.headers):
                        self._refuse(412)
                        return
                    self._answer(body, fault)
                return
            self._answer(body, fault)

        def handle(self) -> None:
            with suppress(ConnectionError, ssl.SSLError):  # the client may go at any time
                super().handle()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on  # noqa: N815

        def _answer(self, body: bytes, fault: Fault | None) -> None:
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.server.port, timeout=60)
            try:
                # As a proxy of HTTP_PROXY it is asked for the whole URL.
                whole = urlsplit(self.path)
                path = whole._replace(scheme="", netloc="").geturl()
                upstream.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)  # Host, too: it is signed
                upstream.endheaders(body)
                answer = upstream.getresponse()
                data = answer.read()
            except OSError:
                self._reset()
                return
            finally:
                upstream.close()
            self.send_response(answer.status)
            ours = ("content-length", "transfer-encoding", "connection", "date", "server")
            for name, value in answer.getheaders():
                if name.lower() not in ours:
                    self.send_header(name, value)
            length = (
                answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            )
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if fault in ("reset", "stall", "truncate"):
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                if fault == "stall":
                    proxy.released.wait(30)
                if fault == "reset":
                    self._reset()
                self.close_connection = True
                return
            self.wfile.write(data)

        def _refuse(self, status: int) -> None:
            codes = {
                400: "InvalidRequest",
                403: "AccessDenied",
                404: "NoSuchKey",
                412: "PreconditionFailed",
                501: "NotImplemented",
                503: "SlowDown",
            }
            # Some servers repeat the request in their answer, credentials included.
            secrets = self.headers.get("Authorization", "")
            data = (
                f"<Error><Code>{codes[status]}</Code><Message>{secrets}</Message></Error>".encode()
                if self.command != "HEAD"
                else b""
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _reset(self) -> None:
            """Close without the usual goodbye."""
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()

        def log_message(self, *_: object) -> None:
            """Nothing to the terminal."""

    return Handler
