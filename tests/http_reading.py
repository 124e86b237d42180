"""Reading from the web in tests."""

import pytest

from lib.storage.errors import FetchError
from lib.storage.http import HttpOptions, fetch_http

IMAGE = bytes(range(256)) * 100
OPEN = HttpOptions(private=True)
GUARDED = HttpOptions()
REFUSED = ("access_denied", "a private address; --http.private reads it")


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
