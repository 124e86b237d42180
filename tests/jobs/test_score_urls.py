"""The main job on a list of URLs: a real web server, and what goes wrong on the web."""

import csv
from pathlib import Path
from threading import Event

import numpy as np
import pandas as pd
import pytest

from lib.storage.folder import folder
from tests.http_site import Site, body, drip, http_site, redirect, reset, status
from tests.nasty import jpeg
from tests.ray_head import RayHead, run_job

URLS = 2000
PASSWORD = "a-password-that-must-never-be-seen"
TOKEN = "a-token-that-must-never-be-seen"


@pytest.fixture(scope="module")
def picture() -> bytes:
    pixels = np.random.default_rng(4).integers(0, 256, (6, 6, 3), np.uint8)
    return jpeg(pixels.repeat(8, 0).repeat(8, 1))


def write_list(file: Path, urls: list[str]) -> Path:
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["url", "caption"])
        writer.writerows([url, f"caption {number}"] for number, url in enumerate(urls))
    return file


def troubles(site: Site, picture: bytes, gone: Event) -> dict[str, tuple[str, str]]:
    """Paths where something goes wrong → the status of the row, and a part of its error."""
    said = f"HTTP/1.1 200 OK\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
    answers = {
        "/404": ([status(404)], "not_found", ""),
        "/410": ([status(410)], "not_found", ""),
        "/403": ([status(403)], "access_denied", ""),
        "/429": ([status(429, Retry_After="1"), body(picture)], "ok", ""),
        "/429-for-long": ([status(429, Retry_After="3600")], "download_error", "asks to wait 3600 s"),
        "/503": ([status(503), reset, body(picture)], "ok", ""),
        "/loop": ([redirect("/loop")], "download_error", "more than 5 redirects"),
        "/moved": ([redirect("/0.jpg", 301)], "ok", ""),
        "/ftp": ([redirect("ftp://127.0.0.1/x")], "download_error", "redirect"),
        "/slow": ([drip(said, b"x", gone)], "download_error", "took too long"),
        "/longer": ([body(picture + b"GET /0.jpg", Content_Length=str(len(picture)))], "ok", ""),
        "/shorter": ([body(picture[:100], Content_Length=str(len(picture)))], "download_error", ""),
        "/html": ([body(b"<html>no picture</html>", Content_Type="text/html")], "decode_error", ""),
        "/empty": ([body(b"")], "decode_error", ""),
        "/noai": ([body(picture, X_Robots_Tag="noai")], "access_denied", "X-Robots-Tag"),
        "/large": ([body(b"x" * 200_000)], "too_large", "200000 bytes; the limit is 100000"),
    }  # fmt: skip
    for path, (sequence, _, _) in answers.items():
        site.serve(path, *sequence)
    return {path: (expected, says) for path, (_, expected, says) in answers.items()}


def options(urls: Path, output: Path, model: Path, *more: object) -> list[object]:
    return [
        *("jobs.score", "--images", urls, "--output", output, "--model", model),
        *("--detector", "none"),
        *("--max-image-bytes", 100_000, "--fetch-timeout", 3, "--carry", "caption", *more),
    ]


def rows_of(output: Path) -> pd.DataFrame:
    labels = folder(output / "labels")
    frame = pd.concat([labels.read_table(name).to_pandas() for name in labels.files()])
    assert frame["id"].is_unique
    return frame.sort_values("id").reset_index(drop=True)


def test_a_list_of_urls(head: RayHead, model: Path, picture: bytes, tmp_path: Path) -> None:
    gone = Event()
    with http_site() as site:
        expected = troubles(site, picture, gone)
        for number in range(100):
            site.serve(f"/{number}.jpg", body(picture))
        fine = [
            site.url(f"/{n % 100}.jpg?n={n}&key={TOKEN}") for n in range(URLS - len(expected) - 2)
        ]
        urls = [
            *(site.url(path) for path in expected),
            site.url("/1.jpg", user=f"someone:{PASSWORD}@"),
            "http://nowhere.invalid/x.jpg",
            *fine,
        ]
        listed = write_list(tmp_path / "urls.csv", urls)
        output = tmp_path / "out"
        command = options(listed, output, model, "--http.private")
        command += ["--faces.actors", 2, "--faces.cpus", 1]
        code, text = run_job(head.environment, tmp_path / "log", *command)
        gone.set()
        assert code == 0, text
        assert max(site.most.values()) <= 8
        (agent,) = {headers["User-Agent"] for _, headers in site.requests}
        assert agent.startswith("face-archive-labels/")
    rows = rows_of(output)
    assert rows["uri"].tolist() == urls
    assert rows["caption"].tolist() == [f"caption {number}" for number in range(URLS)]
    for path, (wanted, says) in expected.items():
        row = rows[rows["uri"] == site.url(path)].iloc[0]
        assert (row["status"], path) == (wanted, path), row["error"]
        assert not says or says in row["error"]
    assert rows["status"][len(expected)] == "ok"  # with a password
    assert rows["status"][len(expected) + 1] == "download_error"
    assert set(rows["status"][len(expected) + 2 :]) == {"ok"}
    errors = " ".join(rows["error"].dropna())
    logs = [tmp_path / "log", *Path(head.environment["RAY_TMPDIR"]).rglob("*.log")]
    for secret in (PASSWORD, TOKEN):
        assert secret not in errors
        assert not [log for log in logs if secret in log.read_text(errors="replace")]


def test_private_addresses_are_refused(
    alone: dict[str, str], model: Path, picture: bytes, tmp_path: Path
) -> None:
    """A list from elsewhere must not read what only this machine can reach."""
    with http_site() as site:
        site.serve("/0.jpg", body(picture))
        urls = [site.url("/0.jpg"), site.url("/0.jpg", host="localhost")]
        urls += [site.url("/0.jpg", host="2130706433"), "http://169.254.169.254/latest/meta-data"]
        listed = write_list(tmp_path / "urls.csv", urls)
        command = options(listed, tmp_path / "out", model)
        code, text = run_job(alone, tmp_path / "log", *command)
        assert code == 0, text
        assert not site.requests
    rows = rows_of(tmp_path / "out")
    assert rows["status"].tolist() == ["access_denied"] * 4
    assert set(rows["error"]) == {"a private address; --http.private reads it"}


def test_impossible_options_are_refused_at_once(tmp_path: Path) -> None:
    from jobs.score import main
    from lib.common.errors import UserError

    with pytest.raises(UserError, match=r"--http.per-host must be at least 1, not 0"):
        main(["--images", str(tmp_path), "--output", str(tmp_path), "--http.per-host", "0"])
