"""Which hosts are connected to, how often at a time, over TLS and by way of proxies."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest

from lib.common.errors import UserError
from lib.storage import http, http_connections
from lib.storage.http import (
    HttpClient,
    HttpOptions,
)
from lib.storage.http_connections import is_private
from lib.storage.http_errors import NOT_TRUSTED
from tests.http_reading import GUARDED, IMAGE, OPEN, REFUSED, failure, got
from tests.http_site import (
    Site,
    WebProxy,
    body,
    drip,
    http_site,
    redirect,
    web_proxy,
)
from tests.ray_head import free_port, wait_until

pytestmark = pytest.mark.usefixtures("afresh")


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


@pytest.fixture
def proxy() -> Iterator[WebProxy]:
    with web_proxy() as running:
        yield running


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
