"""A real server of Azure's blob storage on loopback: Microsoft's Azurite, from npm."""

import base64
import fcntl
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from tests.ray_head import free_port, wait_until

VERSION = "3.37.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that Microsoft documents for its emulators."""


def install(folder: Path) -> Path:
    """Install the server once; gives its program, or skips the test."""
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    npm = shutil.which("npm")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of two files may run at a time
        if program.exists():
            return program
        if npm is None:
            pytest.skip("npm is not installed: no server of Azure to test with")
        command = [npm, "install", "--prefix", str(folder), "--no-audit", f"azurite@{VERSION}"]
        if subprocess.run(command, capture_output=True, check=False, timeout=300).returncode:
            pytest.skip("npm cannot install azurite: no server of Azure to test with")
    return program


@contextmanager
def azure_server(program: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Run a server with the container `photos`; gives the environment that leads to it."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(program, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"),
            *("--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_until(answers, 60)
        _make_container(url, "photos")
        yield {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": url}
    finally:
        process.kill()
        process.wait()


def _make_container(url: str, name: str) -> None:
    now, version = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "2021-08-06"
    blank = "\n" * 12
    signed = (
        f"PUT{blank}x-ms-date:{now}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{name}"
        "\nrestype:container"
    )
    digest = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    answer = urllib3.request(
        "PUT",
        f"{url}/{ACCOUNT}/{name}?restype=container",
        headers={
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
            "Content-Length": "0",
            "x-ms-date": now,
            "x-ms-version": version,
        },
    )
    assert answer.status == 201, answer.data
