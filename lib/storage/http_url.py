"""URLs of the web, taken apart for a request."""

import base64
import re
from typing import NamedTuple
from urllib.parse import unquote, urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from lib.storage.errors import FetchError

PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(https?)://([^/?#\\]*)([^#]*)", re.IGNORECASE)


class Target(NamedTuple):
    """What a URL names.

    Attributes:
        scheme: `http` or `https`.
        host: in lower case and ASCII; an IPv6 address is in brackets.
        port: of TCP.
        path: with the query string, without the fragment, perhaps not yet percent-encoded.
        authorization: a header for the user and password in the URL; empty if there is none.
    """

    scheme: str
    host: str
    port: int
    path: str
    authorization: dict[str, str]

    @property
    def origin(self) -> tuple[str, str, int]:
        """Who may see headers that are meant for this URL."""
        return self.scheme, self.host, self.port

    @property
    def netloc(self) -> str:
        """Host, and port unless it is the usual one."""
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"


def target_of(url: str) -> Target:
    """Take a URL apart. The path stays as it is: a signature may cover `.` and `..` in it.

    Args:
        url: may hold other alphabets than ASCII, spaces, and a user and password.

    Raises:
        FetchError: it is impossible.
    """
    found = _URL.match(url.strip())
    if found is None:
        raise FetchError("download_error", "a URL that is not http:// or https://")
    scheme, authority, path = found.groups()
    try:
        server = parse_url(f"{scheme}://{authority}")
    except LocationParseError:
        server = None
    if server is None or not server.scheme or not server.host:
        raise FetchError("download_error", "an impossible URL")
    user = base64.b64encode(unquote(server.auth or "").encode()).decode()
    return Target(
        server.scheme,
        server.host,
        server.port or PORTS[server.scheme],
        path if path.startswith("/") else f"/{path}",
        {"Authorization": f"Basic {user}"} if server.auth else {},
    )


def redirected(url: str, location: str) -> tuple[str, Target]:
    """Where a redirect leads to.

    Args:
        url: that was redirected.
        location: the header of the answer.

    Returns:
        The new URL, whole and taken apart.

    Raises:
        FetchError: it is impossible.
    """
    try:
        # Headers are Latin-1 to Python; servers send UTF-8.
        url = urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))
        return url, target_of(url)
    except (FetchError, ValueError) as error:
        reason = error if isinstance(error, FetchError) else "an impossible URL"
        raise FetchError("download_error", f"a redirect to {reason}") from None
