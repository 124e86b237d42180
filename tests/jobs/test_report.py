"""The report as readers see it: in a real browser, from archives with all that can go wrong."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from jobs.report import main
from lib.common.errors import UserError
from lib.output.counts import LabelCounts
from tests.browser import DESKTOP, PHONE, Visit, chromium
from tests.made_labels import face, make_output
from tests.nasty import jpeg, jpeg_turned, quadrants
from tests.s3_server import Proxy, S3Server

ATTACK = "<img src=x onerror=alert(1)>"
HOSTILE_NAMES = (
    f"{ATTACK}.jpg",
    '"><script>alert(2)</script>.jpg',  # a folder and a file, and a tag in the uri
    "' onmouseover='alert(3).jpg",
    "{{ 7 * 7 }}{% raw %}.jpg",
    "javascript:alert(4).jpg",
    "\u202egpj.exe\n.jpg",
    os.fsdecode(b"latin1-\xe9.jpg"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an archive that attacks its readers, with faces of both genders and many ages."""
    folder = tmp_path_factory.mktemp("hostile")
    images = folder / f"images {ATTACK}"
    labels: dict[str, dict[str, object]] = {}
    for number, name in enumerate(HOSTILE_NAMES):
        save(images / name)
        gender = "female" if number % 2 else "male"
        labels[name] = {"faces": [face(age=11.0 * number + 1, gender=gender)]}
    save(images / "crowd.jpg")
    labels["crowd.jpg"] = {"faces": [face(age=30, gender="female"), *[face(age=5)] * 40]}
    save(images / "nobody.jpg")
    labels["nobody.jpg"] = {}
    save(images / "broken.jpg", b"")
    labels["broken.jpg"] = {"status": "decode_error", "error": f"damaged image: {ATTACK}"}
    save(images / "gone.jpg")
    labels["gone.jpg"] = {"faces": [face(age=70)]}
    output = make_output(folder / "out", images, labels, files=3)
    (images / "gone.jpg").unlink()
    return report(output)


def save(file: Path, data: bytes | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(jpeg(quadrants()) if data is None else data)


def report(output: Path, *options: object) -> Path:
    page = output.parent / "report.html"
    arguments = ["--labels", output, "--output", page, *options]
    assert main([str(argument) for argument in arguments]) == 0
    return page


def test_nothing_of_the_archive_runs_and_no_request_leaves(browser: Browser, hostile: Path) -> None:
    visit = Visit(browser, hostile)
    page = visit.page
    tiles = page.locator(".tile")
    assert tiles.count() == len(HOSTILE_NAMES) + 4
    tiles.first.locator("button").click()
    for _ in range(tiles.count()):  # every large picture and row
        page.mouse.move(600, 400)
        page.keyboard.press("ArrowRight")
        assert page.locator("dialog h3").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("img:not([src^='data:'])").count() == 0
    assert page.locator("script").count() == 1
    assert page.locator(".name", has_text=ATTACK).count() == 1
    assert page.locator(".examples", has_text=ATTACK).count() == 1
    assert page.locator(".name", has_text="{{ 7 * 7 }}").count() == 1
    assert ATTACK in page.title() + page.locator("h1").inner_text()
    assert visit.troubles == []


def test_the_policy_stops_what_is_slipped_in(
    browser: Browser, hostile: Path, tmp_path: Path
) -> None:
    """As if escaping had failed: no code runs, and no styles or pictures from elsewhere get in."""
    slipped = (
        "<script>window.ran = 1</script><img src='data:,' onerror='window.ran = 2'>"
        "<img src='http://127.0.0.1:9/x.png'><iframe src='http://127.0.0.1:9/'></iframe>"
        "<link rel='stylesheet' href='http://127.0.0.1:9/x.css'><p style='color: red'>"
    )
    text = hostile.read_text("utf-8")
    assert "<main>" in text
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{slipped}"), "utf-8")
    visit = Visit(browser, tmp_path / "page.html")
    assert visit.page.locator("main > iframe").count() == 1
    assert visit.page.evaluate("() => window.ran ?? null") is None
    refused = [t for t in visit.troubles if "Content Security Policy" in t]
    for directive in ("script-src", "img-src", "style-src", "default-src"):
        assert any(directive in trouble for trouble in refused)
    assert visit.page.locator(".filters").is_visible()  # the page's own script does run


def test_pictures_load_and_filters_choose(browser: Browser, hostile: Path) -> None:
    page = Visit(browser, hostile).page
    loaded = page.locator("img").evaluate_all("all => all.map(i => i.complete && i.naturalWidth)")
    assert len(loaded) == 6 + len(HOSTILE_NAMES) + 2
    assert all(loaded)
    shown = page.locator(".tile:visible")
    everything = shown.count()

    def choose(**wanted: str) -> list[dict[str, str]]:
        for name, value in wanted.items():
            page.select_option(f"[name={name}]", value)
        chosen = shown.evaluate_all("all => all.map(tile => ({...tile.dataset}))")
        assert page.locator(".shown").inner_text() == f"{len(chosen)} of {everything} shown"
        return chosen

    assert [tile["gender"] for tile in choose(gender="female")] == ["female"] * 4
    assert [tile["band"] for tile in choose(band="30-39")] == ["30-39"] * 2
    assert choose(status="decode_error") == []
    page.get_by_role("button", name="Show all").click()
    expect(shown).to_have_count(everything)  # the page filters again a moment after the click
    assert [tile["status"] for tile in choose(status="decode_error")] == ["decode_error"]


def test_the_gallery_is_sorted_by_age_and_tells_what_it_cannot_show(
    browser: Browser, hostile: Path
) -> None:
    page = Visit(browser, hostile).page
    labels = page.locator(".tile .label").all_inner_texts()
    ages = [int(label.split(" ±")[0]) for label in labels if "±" in label]
    assert ages == sorted(ages)
    assert len(ages) == len(labels) - 2
    assert labels[0] == "1 ± 6 · male 0.98"
    assert any(label.startswith("30 ± 6 · female 0.98") and "+ 40" in label for label in labels)
    gone = page.locator(".tile", has_text="gone.jpg")
    assert "cannot be shown now: no such file" in gone.inner_text()


def test_it_works_without_a_mouse(browser: Browser, hostile: Path) -> None:
    page = Visit(browser, hostile).page
    focused = "() => document.activeElement.closest('.tile')?.querySelector('.name').innerText"
    tiles = page.locator(".tile .name").all_inner_texts()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(focused):
            break
    assert page.evaluate(focused) == tiles[0]
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog").is_visible()
    assert page.locator("dialog .position").inner_text() == f"2 of {len(tiles)}"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.wait_for_function(f"name => ({focused})() === name", arg=tiles[1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_screen(
    size: tuple[int, int], scheme: str, browser: Browser, hostile: Path, tmp_path: Path
) -> None:
    """Nothing is wider than the screen, charts are of the screen's kind; a screenshot to look at."""
    visit = Visit(browser, hostile, size, scheme)
    page = visit.page
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size[0]
    chart = page.locator("figure img").first
    assert chart.get_attribute("alt")
    narrow, dark = size == PHONE, scheme == "dark"
    sources = chart.evaluate(
        "i => [...i.parentElement.querySelectorAll('source')].map(s => s.srcset)"
    )
    expected = {(True, True): 0, (True, False): 1, (False, True): 2}.get((narrow, dark))
    used = chart.evaluate("image => image.currentSrc")
    assert used == (chart.get_attribute("src") if expected is None else sources[expected])
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == dark
    file = tmp_path / "screenshot.png"
    page.screenshot(path=file, full_page=True)
    with Image.open(file) as image:
        assert image.width == size[0]
        assert image.height > 2 * size[1]
    assert visit.troubles == []


@pytest.mark.parametrize(
    ("labels", "says", "charts"),
    [
        ({"a.jpg": {}}, "No face was found", 0),
        ({"a.jpg": {"faces": [face(face_score=None)]}}, "1 image labelled", 5),
        ({"a.jpg": {"status": "decode_error", "error": "empty file"}}, "No face was found", 0),
        ({}, "The labelling has not come to its end: 0 of 1 images", 0),
    ],
    ids=["no face", "one image", "only errors", "nothing yet"],
)
def test_archives_of_little(
    labels: dict[str, dict[str, object]], says: str, charts: int, browser: Browser, tmp_path: Path
) -> None:
    save(tmp_path / "images" / "a.jpg")
    visit = Visit(browser, report(make_output(tmp_path / "out", tmp_path / "images", labels)))
    assert says in visit.page.locator("body").inner_text()
    assert visit.page.locator("figure").count() == charts
    assert visit.page.locator(".tile").count() == len(labels)
    assert visit.troubles == []


def test_annotated_pictures(tmp_path: Path) -> None:
    """Upright, in colour, with the box where the label row has it, as files named by id."""
    images = tmp_path / "images"
    images.mkdir()
    grey = np.full((300, 400, 3), 128, np.uint8)
    for orientation in (1, 6):
        (images / f"{orientation}.jpg").write_bytes(jpeg_turned(grey, orientation))
    labels = {
        "1.jpg": {"faces": [face(box=(100, 120, 80, 90))]},
        "6.jpg": {"faces": [face(box=(100, 120, 80, 90), gender="female")]},
    }
    output = make_output(tmp_path / "out", images, labels)
    report(output, "--annotate", 5)
    written = sorted((tmp_path / "report-pictures").iterdir())
    assert [file.name for file in written] == ["00000000.jpg", "00000001.jpg"]
    for file, blue in zip(written, (True, False), strict=True):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        scale = pixels.shape[1] / 400
        assert pixels.shape == (300 * scale, 400 * scale, 3)
        left, top, bottom = (round(value * scale) for value in (101, 160, 209))
        for y, x in ((top, left), (bottom, round(140 * scale))):
            red, _, b = pixels[y, x]
            assert (b > red + 40) == blue
            assert (red > b + 40) != blue
        inside = pixels[
            round(140 * scale) : round(195 * scale), round(110 * scale) : round(170 * scale)
        ]
        assert abs(inside - 128).max() < 12


def test_a_running_labelling_counts_only_whole_files(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("a.jpg", "b.jpg"):
        save(images / name)
    output = make_output(tmp_path / "out", images, {"a.jpg": {}, "b.jpg": {}}, files=2)
    assert LabelCounts(output / "labels").update().total() == 2
    second = sorted((output / "labels").glob("*.parquet"))[-1]
    second.rename(second.with_name(f".{second.name}.tmp"))  # as a file that is being written
    page = report(output).read_text()
    assert "1 of 2 images have been labelled" in " ".join(page.split())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--labels", "/no/such"], "no labelling in '/no/such'"),
        (["--labels", "."], "give the folder that was the --output of jobs.score"),
        (["--annotate", "0"], "--annotate must be at least 1, not 0"),
        (["--output", "report.pdf"], "--output must be a file that ends in .html"),
        (["--output", "/proc/x/report.html"], "cannot write --output '/proc/x/report.html'"),
    ],
)
def test_what_cannot_work_is_refused(options: list[str], complaint: str, tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.jpg")
    output = make_output(tmp_path / "out", tmp_path / "images", {"a.jpg": {}})
    with pytest.raises(UserError, match=complaint):
        main(["--labels", str(output), "--output", str(tmp_path / "r.html"), *options])


def test_pictures_in_s3_by_the_options_of_the_run(
    s3: S3Server, proxy: Proxy, tmp_path: Path
) -> None:
    """The labels are local, and only their run.json says where the pictures are."""
    s3.bucket("pictures")
    s3.put("s3://pictures/a.jpg", jpeg(quadrants()))
    labels = {"a.jpg": {"faces": [face()]}}
    output = make_output(tmp_path / "out", "s3://pictures", labels, storage=s3.options)
    assert "data:image/webp" in report(output).read_text("utf-8")
    proxy.refuses = lambda method, path, headers: 403
    closed = report(output, "--s3.endpoint", proxy.endpoint, "--s3.region", "us-east-1")
    text = closed.read_text("utf-8")
    assert "data:image/webp" not in text
    assert "cannot be shown now" in text
