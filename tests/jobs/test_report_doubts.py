"""Uncertain, blurred and possibly minor faces in the report, as readers see them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, expect

from jobs.report import main
from lib.images import Picture
from lib.output.reader import Output
from lib.report.doubts import Doubts
from lib.report.label_statistics import label_statistics
from lib.report.picture import annotate, face_label
from tests.browser import Visit, chromium
from tests.made_labels import CARD, face, make_output
from tests.nasty import jpeg, quadrants

CUT = CARD["under_age"]["operating_points"][0]["cut"]
SHARP, BLURRED = (CARD["certainty"]["least_sharpness"] * factor for factor in (2, 0.5))
ADULT = face(certain=True, sharpness=SHARP, p_under_18=CUT / 2)
LABELS = {
    "adult.jpg": {"faces": [ADULT, face(certain=False, sharpness=BLURRED, p_under_18=0.9)]},
    "blurred.jpg": {"faces": [face(certain=False, sharpness=BLURRED, p_under_18=CUT / 2)]},
    "young.jpg": {"faces": [face(age=18, certain=True, sharpness=SHARP, p_under_18=2 * CUT)]},
    "nobody.jpg": {},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in LABELS:
        (tmp_path / "images" / name).write_bytes(jpeg(quadrants()))
    return make_output(tmp_path / "out", tmp_path / "images", LABELS)


def page_of(output: Path) -> Path:
    page = output.parent / "report.html"
    assert main(["--labels", str(output), "--output", str(page)]) == 0
    return page


def test_filters_choose_by_the_main_face(browser: Browser, output: Path) -> None:
    visit = Visit(browser, page_of(output))
    page = visit.page
    shown = page.locator(".tile:visible")

    def choose(name: str, value: str) -> list[str]:
        page.get_by_role("button", name="Show all").click()
        expect(shown).to_have_count(len(LABELS))
        page.select_option(f"[name={name}]", value)
        return sorted(shown.locator(".name").all_inner_texts())

    assert choose("certainty", "uncertain") == ["blurred.jpg"]
    assert choose("certainty", "certain") == ["adult.jpg", "young.jpg"]
    assert choose("sharpness", "blurred") == ["blurred.jpg"]
    assert choose("minors", "minor possible") == ["young.jpg"]
    assert choose("minors", "minor unlikely") == ["adult.jpg", "blurred.jpg"]
    labels = page.locator(".tile .label").all_inner_texts()
    assert "48 ± 6 · uncertain" in labels
    assert "18 ± 6 · male 0.98" in labels
    text = page.locator("body").inner_text()
    assert "Certain are faces with a gender_score of at least" in text
    assert f"younger than 18 is at least {CUT:.3f}" in text
    tiles = {  # of all faces, not of the main ones alone
        name: page.locator(".tiles > div", has_text=name).inner_text().split("\n")[-1]
        for name in ("Uncertain", "Blurred", "Possibly minors")
    }
    assert tiles == {
        "Uncertain": "2 faces", "Blurred": "2 faces", "Possibly minors": "2 faces"
    }  # fmt: skip
    page.get_by_role("button", name="Show all").click()
    page.locator(".tile", has_text="blurred.jpg").locator("button").click()
    row = page.locator("dialog table").inner_text()
    assert "certain" in row
    assert "p under 18" in row
    assert "no" in row.split()
    assert visit.troubles == []


def test_another_threshold_has_no_operating_point(output: Path) -> None:
    """The cut is for 18 years: at 21 nobody is called a possible minor."""
    record = json.loads((output / "run.json").read_text())
    record["fingerprint"]["threshold"] = 21
    (output / "run.json").write_text(json.dumps(record))
    (file,) = (output / "labels").iterdir()
    table = pq.read_table(file)
    faces = [
        [{("p_under_21" if k == "p_under_18" else k): v for k, v in f.items()} for f in of_image]
        for of_image in table["faces"].to_pylist()
    ]
    table = table.rename_columns(
        ["p_under_21" if n == "p_under_18" else n for n in table.column_names]
    )
    position = table.column_names.index("faces")
    pq.write_table(table.set_column(position, "faces", pa.array(faces)), file)
    doubts = Doubts.of(Output(str(output)))
    assert (doubts.threshold, doubts.point) == (21, None)
    text = page_of(output).read_text("utf-8")
    assert "minor possible" not in text
    assert "Possibly minors" not in text
    assert "p under 21" in text
    assert 'value="uncertain"' in text


def test_labels_of_before_are_shown_as_before(output: Path) -> None:
    """Their files have none of the columns, and the card of their run has no rule."""
    record = json.loads((output / "run.json").read_text())
    del record["model"]["certainty"], record["model"]["under_age"]
    (output / "run.json").write_text(json.dumps(record))
    new = {"certain", "sharpness", "pose", "cut", "p_under_18"}
    (file,) = (output / "labels").iterdir()
    table = pq.read_table(file).drop_columns(sorted(new))
    faces = table["faces"]
    element = faces.type.value_type
    kept = [field for field in element if field.name not in new]
    rows = [[{k: v for k, v in f.items() if k not in new} for f in i] for i in faces.to_pylist()]
    position = table.column_names.index("faces")
    old = table.set_column(position, "faces", pa.array(rows, pa.list_(pa.struct(kept))))
    pq.write_table(old, file)
    assert label_statistics(Output(str(output)), {}).doubtful == {}
    text = page_of(output).read_text("utf-8")
    assert "uncertain" not in text.split("</style>")[1].replace("uncertainty", "")
    assert "18 ± 6 · male 0.98" in text


def test_an_uncertain_face_has_a_dashed_box_in_no_gender_s_colour() -> None:
    picture = Picture(np.full((600, 800, 3), 255, np.uint8), 800, 600, 1, (0, 0))

    def drawn(certain: bool | None) -> np.ndarray:
        made = face(box=(200, 200, 300, 300), certain=certain)
        return np.asarray(annotate(picture, [made], (800, 600), 17)).astype(int)

    lower_edge = slice(210, 490)
    solid, dashed = (drawn(certain)[498, lower_edge].min(axis=1) < 250 for certain in (True, False))
    assert solid.all()
    assert 0.4 < dashed.mean() < 0.8
    np.testing.assert_array_equal(drawn(True), drawn(None))
    male, neutral = (drawn(certain)[498, lower_edge].reshape(-1, 3) for certain in (True, False))
    assert not (neutral[dashed] == male[0]).all(axis=1).any()
    assert face_label(face(certain=False)) == "48 ± 6 · uncertain"
    assert face_label(face(certain=None)) == face_label(face(certain=True)) == "48 ± 6 · male 0.98"


def test_what_is_unknown_is_neither(output: Path) -> None:
    doubts = Doubts.of(Output(str(output)))
    assert doubts.words({}) == {"certainty": "", "sharpness": "", "minors": ""}
    at_the_cut = {"certain": True, "sharpness": None, "p_under_18": CUT}
    assert doubts.words(at_the_cut) == {
        "certainty": "certain", "sharpness": "", "minors": "minor possible"
    }  # fmt: skip
