"""Byte ranges of files on the web, as presigned URLs are read."""

import gzip
from http.server import BaseHTTPRequestHandler

import pytest

from lib.storage.errors import FetchError
from lib.storage.http import (
    read_range,
)
from tests.http_reading import IMAGE
from tests.http_site import (
    Answer,
    Site,
    body,
    http_site,
    redirect,
    status,
)

pytestmark = pytest.mark.usefixtures("afresh")


def ranged(code: int, shown: str | None = None, data: bytes | None = None) -> Answer:
    """Answer with a range as a server that says it so."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        said = f"bytes {first}-{last}/{len(IMAGE)}" if shown is None else shown
        sent = IMAGE[first : last + 1] if data is None else data
        body(sent, code, **({"Content_Range": said} if said else {}))(handler)

    return answer


@pytest.mark.parametrize("answer", [ranged(206), ranged(206, ""), ranged(200)])
def test_a_range(site: Site, answer: Answer) -> None:
    url = site.serve("/a.tar", status(503), answer)
    assert read_range(url, 1000, 500, 10, {"X-Key": "1"}) == IMAGE[1000:1500]
    assert site.requests[-1][1]["X-Key"] == "1"
    assert read_range(url, 5, 0, 10) == b""
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ranged(200, "", IMAGE), "download_error"),
        (ranged(200, "bytes 0-499/25600"), "download_error"),
        (ranged(206, "bytes 0-499/25600"), "download_error"),
        (ranged(206, "", b"short"), "download_error"),
        (ranged(206, "", IMAGE), "too_large"),
        (status(416), "download_error"),
        (status(403), "access_denied"),
        (status(404), "not_found"),
    ],
)
def test_another_range(site: Site, answer: Answer, expected: str) -> None:
    with pytest.raises(FetchError) as caught:
        read_range(site.serve("/a.tar", answer), 1000, 500, 10)
    assert caught.value.status == expected
    assert len(site.requests) == 1


def test_a_range_of_a_packed_file_is_not_unpacked(site: Site) -> None:
    packed = gzip.compress(IMAGE)[:100]
    url = site.serve("/a.gz", body(packed, 206, Content_Encoding="gzip", X_Robots_Tag="noai"))
    assert read_range(url, 0, 100, 10) == packed


def test_headers_of_a_range_go_to_its_own_server_only(site: Site) -> None:
    with http_site() as other:
        other.serve("/a.tar", ranged(206))
        url = site.serve("/a.tar", redirect(other.url("/a.tar")))
        assert read_range(url, 0, 5, 10, {"X-Key": "1"}) == IMAGE[:5]
        assert other.requests[0][1]["X-Key"] is None
