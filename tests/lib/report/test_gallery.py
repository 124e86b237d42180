import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.report import EACH_ERROR, WITH_FACE, WITHOUT_FACE
from lib.images import Picture
from lib.output.reader import Output
from lib.output.run_record import RunRecord, claim
from lib.report import gallery as g
from lib.report.label_statistics import label_statistics
from lib.report.page import Report, html
from lib.report.picture import annotate, face_label
from lib.scoring.schema import STATUSES
from tests.made_labels import face, row, write_rows
from tests.nasty import jpeg

LARGEST_PAGE = 5_000_000


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("size", "most"), [((760, 640), 32_000), ((340, 340), 9_000)])
def test_no_picture_is_too_heavy(size: tuple[int, int], most: int) -> None:
    """Noise does not compress: it gets smaller."""
    encoded = g.encode(Image.fromarray(noise(*size)), most)
    assert len(encoded.uri) <= most * 4 / 3 + 40
    assert encoded.width < size[0]
    easy = g.encode(Image.new("RGB", size), most)
    assert (easy.width, easy.height) == size


def test_the_worst_page_is_light_enough(tmp_path: Path) -> None:
    """As many images as a page has, of noise, with long names and errors, and a crowd in each."""
    name = "é" * 120 + ".jpg"  # a name may take 255 bytes
    (tmp_path / name).write_bytes(jpeg(noise(1100, 1000)))
    crowd = [face(age=n % 100, box=(5 * n, 5 * n, 50, 50)) for n in range(150)]
    uri = str(tmp_path / name)
    claim(tmp_path, RunRecord("jobs.score", {"images": ["x" * 4000] * 1000, "model": "m" * 200}))
    rows = [
        *(row(n, uri, crowd) for n in range(WITH_FACE)),
        *(row(n, uri) for n in range(WITHOUT_FACE)),
        *(
            row(n, f"/{'<' * 4000}", status=status, error="<" * 4000)
            for n in range(EACH_ERROR)
            for status in list(STATUSES)[2:]
        ),
    ]
    write_rows(tmp_path, rows)
    output = Output(str(tmp_path))
    one_of_each = {r["status"]: r for r in rows}
    originals = g.Originals(output, rows)
    shown = dict(zip(one_of_each, g.gallery([*one_of_each.values()], originals), strict=True))
    items = [dataclasses.replace(shown[r["status"]], row=r) for r in rows]
    assert sum(item.large is not None for item in items) == WITH_FACE + WITHOUT_FACE
    page = html(Report(output, label_statistics(output, {}), items)).encode()
    assert 2_500_000 < len(page) < LARGEST_PAGE


def test_labels_are_drawn_where_there_is_room() -> None:
    """Two faces side by side have both labels; of two in one place the second has its box alone."""
    picture = Picture(np.full((600, 800, 3), 128, np.uint8), 800, 600, 1, (0, 0))

    def coloured(*boxes: tuple[int, int, int, int]) -> int:
        """Pixels of the labels' ground."""
        faces = [face(box=box) for box in boxes]
        image = np.asarray(annotate(picture, faces, (800, 600), 17)).astype(int)
        return int(((image[..., 2] - image[..., 0]) > 60).sum())

    one = coloured((100, 200, 100, 100))
    apart = coloured((100, 200, 100, 100), (500, 200, 100, 100))
    assert apart == pytest.approx(2 * one, rel=0.02)
    small = (100, 0, 30, 20)  # room for one label below it, and none above or inside
    assert coloured(small, small) - coloured(small) < 0.2 * (coloured(small))


def test_small_and_thin_pictures_have_boxes_too() -> None:
    for width, height in ((1, 3000), (3000, 1), (20, 20)):
        picture = Picture(np.zeros((height, width, 3), np.uint8), width, height, 1, (0, 0))
        image = annotate(picture, [face(box=(0, 0, width, height))], (340, 340), 22)
        assert max(image.size) <= 340
        assert np.asarray(image).max() > 100


def test_words() -> None:
    assert face_label(face()) == "48 ± 6 · male 0.98"
    assert g.shorten("a" * 400 + "b" * 400, 101) == "a" * 50 + "…" + "b" * 50
    assert g.shorten("short") == "short"
