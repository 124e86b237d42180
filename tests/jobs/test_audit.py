"""Audits of made-up faces by an untrained model, in this process."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import audit, train
from jobs.audit import main
from lib.audit import interview
from lib.audit.page import BYTES, PICTURES
from lib.audit.suspicion import DUPLICATE, KINDS, NO_FACE
from lib.common.demo import make_demo
from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.suspects import FILE, SUSPECT_SCHEMA, suspect_weights
from lib.storage.folder import folder
from tests.made_faces import make_faces

SIZES = {"train": 60, "val": 12, "test": 8}
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, in which no face is found; a portrait; and twice one picture, or none, under two labels."""
    faces = make_faces(tmp_path_factory.mktemp("audit") / "faces", **SIZES)
    file = faces / "split=train" / "part-0.parquet"
    columns = pq.ParquetFile(file).read().to_pydict()
    make_demo(str(faces.parent / "demo"))
    columns["image"][3] = (faces.parent / "demo" / "portrait.jpg").read_bytes()
    columns["image"][5:7] = [b"no picture"] * 2
    columns["image"][8] = columns["image"][7]
    columns["age"][5:9] = 20, 21, 20, 21
    columns["source"] = [HOSTILE] * SIZES["train"]
    schema = pq.read_schema(file)
    pq.write_table(pa.table(columns, schema=schema), file, row_group_size=16)
    return faces


@pytest.fixture(scope="module")
def audited(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("audited") / "out"
    assert audit_by(data, output, "--models", model) == 0
    return output


def audit_by(data: Path, output: Path, *more: object) -> int:
    return main([str(a) for a in ("--data", data, "--output", output, *more)])


def rows(output: Path) -> list[dict[str, Any]]:
    return pq.read_table(output / FILE).to_pylist()


def test_every_face_has_a_row(audited: Path) -> None:
    table = pq.read_table(audited / FILE)
    assert table.schema.equals(SUSPECT_SCHEMA)
    assert sorted(table["rank"].to_pylist()) == list(range(1, sum(SIZES.values()) + 1))
    splits = [split for split, count in SIZES.items() for _ in range(count)]
    assert table["split"].to_pylist() == splits
    assert [row["suspect"] for row in rows(audited)] == [bool(r["kinds"]) for r in rows(audited)]


def test_faults_of_pictures(audited: Path) -> None:
    found = rows(audited)
    duplicates = [place for place, row in enumerate(found) if DUPLICATE in row["kinds"]]
    assert duplicates == [5, 6, 7, 8]
    assert found[3]["faces_found"] == 1
    assert NO_FACE not in found[3]["kinds"]
    assert NO_FACE in found[4]["kinds"]
    assert found[5]["faces_found"] is None
    assert found[5]["predicted_age"] is found[5]["predicted_gender"] is None
    assert NO_FACE in found[5]["kinds"]
    assert 0 <= found[3]["predicted_age_low"] <= found[3]["predicted_age"] <= 100


def test_tables_and_summary(audited: Path) -> None:
    summary = json.loads((audited / "summary.json").read_text())
    found = rows(audited)
    assert summary["faces"] == len(found)
    assert summary["suspect"] == sum(row["suspect"] for row in found)
    assert summary["without_opinion"] == 2
    assert "must not have learnt from these labels" in summary["how"]
    for kind in KINDS:
        of_kind = [row["rank"] for row in found if kind in row["kinds"]]
        assert summary["kinds"][kind] == len(of_kind)
        with (audited / "ranked" / f"{kind}.csv").open() as file:
            listed = [int(row["rank"]) for row in csv.DictReader(file)]
        assert listed == sorted(of_kind)


def test_the_page_escapes_and_loads_nothing(audited: Path) -> None:
    page = (audited / "audit.html").read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src &#39;none&#39;" in page
    assert "<script" not in page
    assert page.count("The picture cannot be decoded.") >= 2
    assert page.count('<li class="tile') <= len(KINDS) * PICTURES
    assert 0 < max(map(len, page.split('src="data:')[1:])) < BYTES * 2


def test_what_is_asked_is_not_asked_again(
    audited: Path, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(audited)
    (audited / FILE).unlink()
    monkeypatch.setattr(interview, "label_rows", lambda *_: pytest.fail("asked again"))
    assert audit_by(data, audited, "--models", model) == 0
    assert rows(audited) == before


def test_each_face_is_asked_of_its_fold(data: Path, model: Path, tmp_path: Path) -> None:
    """Folds that are trained are not trained again: this output has the bundles of all."""
    for fold in range(2):
        shutil.copytree(model, tmp_path / "out" / "folds" / str(fold) / "bundle")
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run.json' is damaged"):
        audit_by(data, tmp_path / "out", "--folds", 2, "--batch-size", 16)
    shutil.copytree(tmp_path / "out" / "folds", tmp_path / "folds")
    shutil.rmtree(tmp_path / "out")
    # Only its own record makes the folds those of this run.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "train", lambda *_: pytest.fail("the first start ends here"))
        with pytest.raises(pytest.fail.Exception):
            audit_by(data, tmp_path / "out", "--folds", 2, "--batch-size", 16)
    shutil.move(tmp_path / "folds", tmp_path / "out" / "folds")
    assert audit_by(data, tmp_path / "out", "--folds", 2, "--batch-size", 16) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["folds"] == len(summary["models"]) == 2
    folds = [pq.read_table(tmp_path / "out" / "opinions" / f"fold-{n}.parquet") for n in range(2)]
    places = [place for of in folds for place in of["place"].to_pylist()]
    assert sorted(places) == list(range(sum(SIZES.values())))
    assert all(len(of) > 20 for of in folds)


def test_other_labels_are_another_run(
    audited: Path, data: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "faces")
    file = tmp_path / "faces" / "split=val" / "part-0.parquet"
    table = pq.ParquetFile(file).read()
    flipped = ["male" if of == "female" else "female" for of in table["gender"].to_pylist()]
    pq.write_table(table.set_column(2, "gender", pa.array(flipped)), file)
    with pytest.raises(UserError, match="belongs to another run: data was"):
        audit_by(tmp_path / "faces", audited, "--models", model)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--folds", 1), r"--folds must be in 2\.\.100, not 1"),
        (("--models", "m", "--epochs", 3), "nothing is trained, so leave out the options"),
        (("--suspect-weight", 0.5), "--suspect-weight is for jobs.train"),
        (("--models", "nowhere"), "no model at"),
        (("--folds", 50), r"the split train are fewer than one step takes: 96"),
        (("--weights", "nowhere.h5"), "--weights 'nowhere.h5' is not a file"),
    ],
)
def test_bad_options(data: Path, tmp_path: Path, more: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        audit_by(data, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_no_faces(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no faces in .*; it should be the folder faces/"):
        audit_by(tmp_path / "nothing", tmp_path / "out", "--models", model)


def test_training_takes_the_suspects(audited: Path, data: Path) -> None:
    found = rows(audited)[: SIZES["train"]]
    faces = LabelledFaces(folder(data), "train")
    weights = suspect_weights(FILE, folder(audited), faces, 0.5)
    assert weights.tolist() == [0.5 if row["suspect"] else 1.0 for row in found]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--suspect-weight", 0.5), "--suspect-weight 0.5 needs --suspects"),
        (("--suspects", "x", "--suspect-weight", 1.5), r"must be in 0\.\.1, not 1.5"),
        (("--suspects", "nowhere.parquet"), "cannot read --suspects 'nowhere.parquet'"),
    ],
)
def test_bad_options_of_training(
    data: Path, tmp_path: Path, more: tuple[object, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train.main([str(a) for a in ("--data", data, "--output", tmp_path / "run", *more)])
    assert not (tmp_path / "run").exists()


def test_training_on_what_is_left(audited: Path, data: Path, tmp_path: Path) -> None:
    """Nearly all faces are noise, hence suspect: without them there is not one step."""
    suspects = str(audited / FILE)
    left = sum(not row["suspect"] for row in rows(audited)[: SIZES["train"]])
    with pytest.raises(UserError, match=f"the {left} faces of the split train are fewer than"):
        train.main(["--data", str(data), "--output", str(tmp_path / "run"), "--suspects", suspects])
