"""The README's picture of a report: `docs/report.png`, of the demonstration.

    python -m benchmarks.report_picture

Labels the demonstration's archive, writes its report, and takes its picture in Debian's chromium.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from lib.common.demo import make_demo

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "report.png"
WIDTH, MARGIN = 1180, 24
FIRST, LAST = "#people", "#gallery"
"""What the picture shows: from one section of the page to the end of another."""
COLOURS = 255


def main() -> None:
    """Label, report, take the picture."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("error: there is no chromium; on Debian and Ubuntu: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        images, output, page = (Path(folder, name) for name in ("demo", "labels", "report.html"))
        make_demo(str(images))
        run("jobs.score", "--images", images, "--output", output)
        run("jobs.report", "--labels", output, "--output", page)
        PICTURE.parent.mkdir(exist_ok=True)
        picture = screenshot(chromium, page)
    picture.convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {picture.width} × {picture.height}, {PICTURE.stat().st_size / 1000:.0f} kB")


def run(job: str, *options: object) -> None:
    """Run a job; its messages are shown."""
    subprocess.run([sys.executable, "-m", job, *map(str, options)], check=True)


def screenshot(chromium: str, page: Path) -> Image.Image:
    """The page between `FIRST` and `LAST`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
        tab.goto(page.as_uri())
        first, last = (tab.locator(name).bounding_box() for name in (FIRST, LAST))
        data = tab.screenshot(full_page=True)
        browser.close()
    assert first is not None
    assert last is not None
    bottom = last["y"] + last["height"] + MARGIN
    return Image.open(io.BytesIO(data)).crop((0, round(first["y"]), WIDTH, round(bottom)))


if __name__ == "__main__":
    main()
