"""Reading single images from `http://`, `https://` and `data:` URIs."""

import base64
import binascii
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock
from urllib.parse import unquote_to_bytes
from urllib.request import getproxies, proxy_bypass

import urllib3

from lib.common.code_version import code_version
from lib.storage.errors import Fetched, FetchError
from lib.storage.http_connections import (
    CONNECT_SECONDS,
    pool_manager,
    refuse_private_behind_proxy,
    tls_context,
)
from lib.storage.http_errors import ATTEMPTS, Failure, TimedOut, connection_error, status_error
from lib.storage.http_url import PORTS, Target, redirected, target_of
from lib.storage.options import HttpOptions
from lib.storage.retry import pause_seconds

PRODUCT = "face-archive-labels"
MOST_REDIRECTS = 5
_CHUNK = 1 << 20
_WORTH_READING = 1 << 16
"""Bytes of an unwanted body that are read to keep the connection; a longer body closes it."""
_DATA_URI = re.compile(r"data:([^,#]*),([^#]*)", re.IGNORECASE)
_NO_AI = frozenset({"noai", "noimageai"})
_ROBOTS_VALUES = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
"""Directives of `X-Robots-Tag` that have a value after a colon, as an agent has its directives."""


def fetch_http(url: str, max_bytes: int, options: HttpOptions, timeout: float) -> Fetched:
    """Read an image from the web; transient failures are retried.

    Args:
        url: `http://` or `https://`; it may hold a user and password, spaces, and other alphabets.
        max_bytes: the largest image, in bytes, after decoding a Content-Encoding.
        options: limits.
        timeout: seconds for one attempt; large images get more as long as they arrive at 1 MiB/s.

    Returns:
        The bytes, and the ETag or else the date of the last change.

    Raises:
        FetchError: it cannot be read, must not be read, or is too large.
    """
    return client(options).fetch(url, max_bytes, timeout)


def fetch_data_uri(uri: str, max_bytes: int) -> Fetched:
    """The bytes of a `data:` URI (RFC 2397), base64 or percent-encoded.

    Args:
        uri: whole.
        max_bytes: the largest image.

    Returns:
        The bytes, and an empty etag.

    Raises:
        FetchError: it is no such URI, or too large.
    """
    found = _DATA_URI.match(uri)
    if found is None:
        raise FetchError("download_error", "a data: URI without a comma")
    data = unquote_to_bytes(found[2])
    if found[1].lower().rstrip().endswith(";base64"):
        digits = b"".join(data.split()).rstrip(b"=")
        try:
            data = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
        except binascii.Error:
            raise FetchError("download_error", "a data: URI that is not base64") from None
    if len(data) > max_bytes:
        raise FetchError("too_large", f"{len(data)} bytes; the limit is {max_bytes}")
    return Fetched(data, "")


class HttpClient:
    """A client for one set of options; threads may share it. It keeps no cookies."""

    def __init__(self, options: HttpOptions) -> None:
        """Make a client, with the proxies and certificates that the environment names.

        Raises:
            FetchError: the environment names impossible ones.
        """
        self._options = options
        self._slots = _Slots(options.per_host)
        tls = tls_context()
        self._direct = pool_manager(options.per_host, options.private, tls)
        proxies = getproxies()
        self._proxied = {
            scheme: pool_manager(options.per_host, options.private, tls, proxy)
            for scheme in PORTS
            if (proxy := proxies.get(scheme) or proxies.get("all"))
        }
        self._headers = {
            "User-Agent": f"{PRODUCT}/{code_version().split()[-1]}",
            "Accept-Encoding": "identity",
        }

    def fetch(self, url: str, max_bytes: int, timeout: float) -> Fetched:
        """Read a file; see `fetch_http`."""

        def read(answer: urllib3.BaseHTTPResponse) -> Fetched:
            if answer.status != 200:
                raise status_error(answer.status, answer.headers)
            tags = answer.headers.getlist("X-Robots-Tag")
            if not self._options.ignore_robots and forbids_ai(tags):
                raise FetchError(
                    "access_denied", "the server asks not to use it for AI (X-Robots-Tag)"
                )
            etag = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
            data = _body(answer, max_bytes)
            return Fetched(data, etag or answer.headers.get("Last-Modified", ""))

        return self._get(url, timeout, read)

    def _get(
        self, url: str, timeout: float, read: Callable[[urllib3.BaseHTTPResponse], Fetched]
    ) -> Fetched:
        """Request a URL until it does not fail with `Failure`."""
        failures: Counter[type[Failure]] = Counter()
        while True:
            try:
                return self._attempt(url, timeout, read)
            except Failure as failure:
                kind = type(failure)
                failures[kind] += 1
                tried = failures.total()
                if tried == ATTEMPTS or failures[kind] == kind.most:
                    message = f"{failure} (tried {tried} times)"
                    raise FetchError("download_error", message) from None
                pause = max(failure.pause, pause_seconds(tried))
            time.sleep(pause)

    def _attempt(
        self, url: str, timeout: float, read: Callable[[urllib3.BaseHTTPResponse], Fetched]
    ) -> Fetched:
        """Request a URL once, and where it redirects to; waiting for a slot takes none of the time."""
        first = target = target_of(url)
        for _ in range(MOST_REDIRECTS + 1):
            own = first.authorization if target.origin == first.origin else {}
            headers = {**self._headers, **own, **target.authorization}
            with self._slots.of(target.host):
                started = time.monotonic()
                answer = self._answer(target, headers, timeout)
                try:
                    location = answer.get_redirect_location()
                    if not location:
                        return read(answer)
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise connection_error(error) from None
                finally:
                    _finish(answer)
                timeout -= time.monotonic() - started
            url, target = redirected(url, location)
        raise FetchError("download_error", f"more than {MOST_REDIRECTS} redirects")

    def _answer(
        self, target: Target, headers: dict[str, str], timeout: float
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; the body of the answer is still to be read."""
        if timeout <= 0:
            raise TimedOut("the server took too long")
        manager, path = self._direct, target.path
        if target.scheme in self._proxied and not proxy_bypass(f"{target.host}:{target.port}"):
            manager = self._proxied[target.scheme]
            if not self._options.private:
                refuse_private_behind_proxy(target.host.strip("[]"), target.port)
            if target.scheme == "http":
                path = f"http://{target.netloc}{path}"
        pool = manager.connection_from_host(target.host, target.port, target.scheme)
        limits = urllib3.Timeout(total=timeout, connect=min(CONNECT_SECONDS, timeout))
        try:
            return pool.urlopen(
                "GET", path, headers=headers, timeout=limits, retries=False, redirect=False,
                assert_same_host=False, preload_content=False,
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise connection_error(error) from None


def forbids_ai(tags: list[str]) -> bool:
    """Whether `X-Robots-Tag` headers forbid the use for AI, to all or to this product."""
    for tag in tags:
        agent = "*"
        for part in tag.lower().split(","):
            name, colon, value = (word.strip() for word in part.partition(":"))
            if colon and name not in _ROBOTS_VALUES:
                agent, name = name, value
            if name in _NO_AI and agent in ("*", PRODUCT):
                return True
    return False


class _Slots:
    """Limits how many threads use one host at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy: Counter[str] = Counter()
        self._changed = Condition()

    @contextmanager
    def of(self, host: str) -> Iterator[None]:
        """Wait for a slot of a host, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy[host] < self._most)
            self._busy[host] += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy[host] -= 1
                if not self._busy[host]:
                    del self._busy[host]
                self._changed.notify_all()


def _body(answer: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    """Read a body.

    Raises:
        FetchError: it is too large.
    """
    length = answer.length_remaining
    if length is not None and length > max_bytes:
        raise FetchError("too_large", f"{length} bytes; the limit is {max_bytes}")
    parts = []
    read = 0
    while part := answer.read1(_CHUNK, decode_content=True):
        parts.append(part)
        read += len(part)
        if read > max_bytes:
            raise FetchError("too_large", f"more than {max_bytes} bytes, the limit")
    return b"".join(parts)


def _finish(answer: urllib3.BaseHTTPResponse) -> None:
    """Give the connection back; close it if more than a little of the body is unread."""
    unread = answer.length_remaining
    if unread is not None and unread <= _WORTH_READING:
        answer.drain_conn()
    else:
        answer.close()
    answer.release_conn()


_clients: dict[HttpOptions, HttpClient] = {}
_clients_lock = Lock()


def client(options: HttpOptions) -> HttpClient:
    """The client of this process for some options; its connections are kept."""
    with _clients_lock:
        if options not in _clients:
            _clients[options] = HttpClient(options)
        return _clients[options]
