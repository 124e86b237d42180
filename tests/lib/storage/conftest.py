"""Fixtures of the tests of HTTP."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from lib.storage import http, http_connections, retry
from tests.http_site import Site, http_site


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine, nothing remembered, and pauses a hundredth as long."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0025)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.16)
    monkeypatch.setattr(http, "_clients", {})
    monkeypatch.setattr(http_connections, "_unknown_hosts", {})


@pytest.fixture
def site() -> Iterator[Site]:
    with http_site() as running:
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
