"""Connections of the HTTP client: the addresses they may reach, and how long they may take."""

import ipaddress
import logging
import math
import os
import socket
import ssl
import time
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import make_headers, parse_url

from lib.storage.errors import FetchError
from lib.storage.http_errors import Refused, TimedOut

# It logs whole URLs, whose query strings may hold tokens, when it cannot parse a header.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

POOLS = 32
"""Hosts with idle connections; more hosts would need too many file descriptors."""
PROXY_CONNECTIONS = 64
CONNECT_SECONDS = 10.0
SLOWEST_BYTES_A_SECOND = 1 << 20
"""Large images get more time, as long as they arrive at this speed."""
UNKNOWN_HOST_SECONDS = 600.0
MOST_UNKNOWN_HOSTS = 100_000
PRIVATE = "a private address; --http.private reads it"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_RESOLVER_FAILS = {socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY}
"""What else goes wrong with a name means that there is no such host."""

_unknown_hosts: dict[str, float] = {}
"""Host without an address → when to ask again, on the monotonic clock; the oldest first."""
_unknown_hosts_lock = Lock()

Address = tuple[int, int, int, tuple[Any, ...]]
"""Family, kind and protocol of a socket, and what it connects to."""


def is_private(address: str) -> bool:
    """Whether an IP address is not one of the public Internet.

    Args:
        address: IPv4 or IPv6. An IPv6 address that stands for an IPv4 address (mapped, NAT64 of RFC 6052,
            6to4) is judged by that.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_private(str(inner))
        if ip.is_site_local:
            return True
    return not ip.is_global or ip.is_multicast or ip.is_reserved


def addresses(host: str, port: int, peer: str = "the server") -> list[Address]:
    """The addresses of a host. A name without one is remembered for ten minutes.

    Args:
        host: name or address.
        port: of TCP.
        peer: `the server` or `the proxy`, for messages.

    Raises:
        FetchError: there is no such host.
        TimedOut: the resolver does not answer.
    """
    nowhere = FetchError("download_error", f"{peer}'s name is unknown to DNS")
    if time.monotonic() < _unknown_hosts.get(host, 0.0):
        raise nowhere
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _RESOLVER_FAILS:
            raise TimedOut(f"{peer}'s name cannot be resolved now") from None
        _remember_unknown(host)
        raise nowhere from None
    except ValueError:  # no name can be like this
        raise nowhere from None
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def _remember_unknown(host: str) -> None:
    with _unknown_hosts_lock:
        _unknown_hosts.pop(host, None)
        _unknown_hosts[host] = time.monotonic() + UNKNOWN_HOST_SECONDS
        if len(_unknown_hosts) > MOST_UNKNOWN_HOSTS:
            del _unknown_hosts[next(iter(_unknown_hosts))]


def refuse_private(found: list[Address]) -> None:
    """Refuse a host that has a private address, even beside public ones.

    Raises:
        FetchError: it has one.
    """
    if any(is_private(address[0]) for *_, address in found):
        raise FetchError("access_denied", PRIVATE)


def refuse_private_behind_proxy(host: str, port: int) -> None:
    """Refuse a host that has a private address as seen from here; the proxy may know more names.

    Raises:
        FetchError: it has one.
    """
    try:
        found = addresses(host, port)
    except (FetchError, TimedOut):
        return
    refuse_private(found)


class TimedSocket(socket.socket):
    """A socket whose reads end at a deadline, however slowly the bytes drip.

    Attributes:
        deadline: on the monotonic clock; every MiB that arrives moves it by a second.
    """

    deadline = math.inf

    def recv_into(self, *arguments: Any) -> int:
        """Read, as a socket does.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(None if math.isinf(left) else left)
        count = super().recv_into(*arguments)
        self.deadline += count / SLOWEST_BYTES_A_SECOND
        return count


class TimedTlsSocket(TimedSocket, ssl.SSLSocket):
    """The same over TLS."""


def connect(host: str, port: int, seconds: float, peer: str, private: bool) -> TimedSocket:
    """Connect to the first address of a host that answers.

    The addresses that are checked are those connected to, so that a name with changing addresses gains
    nothing.

    Args:
        host: name or address.
        port: of TCP.
        seconds: for all of it, and for what is read before a deadline of its own is set.
        peer: `the server` or `the proxy`, for messages.
        private: also connect to private addresses.

    Raises:
        FetchError: there is no such host, or its address is private.
        Failure: it cannot be connected to now.
    """
    deadline = time.monotonic() + seconds
    found = addresses(host, port, peer)
    if not private:
        refuse_private(found)
    failure: OSError | None = None
    for number, (family, kind, protocol, address) in enumerate(found):
        share = (deadline - time.monotonic()) / (len(found) - number)
        try:
            return _connected(TimedSocket(family, kind, protocol), address, share, deadline)
        except OSError as error:
            failure = error
    if isinstance(failure, TimeoutError):
        raise TimedOut(f"{peer} cannot be reached")
    refused = isinstance(failure, ConnectionRefusedError)
    raise Refused(f"{peer} refuses connections" if refused else f"{peer} cannot be reached")


def _connected(
    sock: TimedSocket, address: tuple[Any, ...], seconds: float, deadline: float
) -> TimedSocket:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(max(seconds, 0.001))
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    # For the handshake with a server, and for the answer of a proxy.
    sock.settimeout(max(deadline - time.monotonic(), 0.001))
    sock.deadline = deadline
    return sock


def pool_manager(
    per_host: int, private: bool, tls: ssl.SSLContext, proxy: str | None = None
) -> urllib3.PoolManager:
    """The connections of a client, or those that it has by way of a proxy.

    Args:
        per_host: connections to keep for a host.
        private: also connect to private addresses; the proxy's own may always be private.
        tls: from `tls_context`.
        proxy: its URL.

    Raises:
        FetchError: it is no URL of an HTTP proxy.
    """
    options: dict[str, Any] = {
        "num_pools": POOLS,
        # All hosts share the connections to a proxy.
        "maxsize": per_host if proxy is None else PROXY_CONNECTIONS,
        "retries": False,
        "ssl_context": tls,
    }
    manager = urllib3.PoolManager(**options) if proxy is None else _proxied(proxy, options)
    manager.pool_classes_by_scheme = _pool_classes(private)
    return manager


def _proxied(proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        user = parse_url(proxy).auth
        headers = make_headers(proxy_basic_auth=unquote(user)) if user else None
        return urllib3.ProxyManager(
            proxy, proxy_headers=headers, proxy_ssl_context=options["ssl_context"], **options
        )
    except (urllib3.exceptions.HTTPError, ValueError):
        # The message leaves the URL out: it may contain a password.
        raise FetchError(
            "download_error", "the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no http:// URL"
        ) from None


def _pool_classes(private: bool) -> dict[str, Any]:
    """The pools of urllib3, with connections that check addresses and keep deadlines."""

    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            peer = "the server" if self.proxy is None else "the proxy"
            allowed = private or self.proxy is not None
            return connect(self._dns_host, self.port, float(self.timeout or 0), peer, allowed)

        def getresponse(self) -> Any:
            if isinstance(self.sock, TimedSocket):
                self.sock.deadline = time.monotonic() + float(self.timeout or 0)
            return super().getresponse()

    class Https(Http, HTTPSConnection):
        pass

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}


def tls_context() -> ssl.SSLContext:
    """How servers are verified: Python's default, which knows SSL_CERT_FILE, and others' variables.

    Raises:
        FetchError: the certificates that one of them names cannot be read.
    """
    context = ssl.create_default_context()
    context.sslsocket_class = TimedTlsSocket
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(variable):
            kind = "capath" if Path(path).is_dir() else "cafile"
            try:
                context.load_verify_locations(**{kind: path})
            except OSError:
                message = f"no certificates can be read from {path}; correct {variable}"
                raise FetchError("download_error", message) from None
    return context
