"""The end of a training, on a model that is there: what is fitted, measured and written."""

from dataclasses import replace
from pathlib import Path

from lib.datasets.labelled_faces import LabelledFaces
from lib.evaluation.honesty import turns_of
from lib.evaluation.labelling import label_faces
from lib.models.bundle import Bundle, read_bundle, write_card
from lib.models.model_card import Training
from lib.storage.folder import folder
from lib.training.card import TEXT, calibrate, with_metrics, with_text
from tests.bundles import make_bundle
from tests.made_faces import make_faces


def finished(where: Path, val: int) -> Bundle:
    """A model calibrated on so many faces, and measured on 60."""
    made = make_bundle(where / "bundle")
    training = Training(faces={"train": 1, "val": val}, recipe={"epochs": 1})
    bundle = write_card(made.folder, replace(made.card, training=training))
    faces = folder(make_faces(where / "faces", train=1, val=val, test=60))
    of_val, of_test = LabelledFaces(faces, "val"), LabelledFaces(faces, "test")
    calibrate(bundle.folder, label_faces(bundle, of_val), turns_of(of_val, val))
    bundle = read_bundle(bundle.folder)
    test = label_faces(bundle, of_test)
    with_metrics(bundle.folder, test, test)
    with_text(bundle.folder)
    return read_bundle(bundle.folder)


def test_minors_and_certain_faces_are_on_the_card(tmp_path: Path) -> None:
    bundle = finished(tmp_path, val=240)
    card, text = bundle.card, (bundle.folder / TEXT).read_text("utf-8")
    assert card.under_age is not None
    assert [point.allowed for point in card.under_age.operating_points] == [0.01, 0.05]
    assert card.certainty is not None
    assert card.certainty.least_sharpness is not None
    assert card.certainty.most_turned is None  # noise has no face in it
    assert card.metrics is not None
    test = card.metrics["test"]
    kinds = (test["certainty"][kind]["count"] for kind in ("certain", "uncertain"))
    assert sum(kinds) == 60
    parts = test["under_18"]["operating_points"][0]["parts"]
    assert parts["all"]["minors"] + parts["all"]["adults"] == 60
    assert "**Minors.**" in text
    assert "**Certain** are faces with a" in text


def test_few_faces_calibrate_what_they_can(tmp_path: Path) -> None:
    bundle = finished(tmp_path, val=10)
    assert (bundle.card.under_age, bundle.card.certainty) == (None, None)
    assert bundle.card.metrics is not None
    test = bundle.card.metrics["test"]
    assert test["under_18"]["operating_points"] == []
    assert "certainty" not in test  # the column is null
    text = (bundle.folder / TEXT).read_text("utf-8")
    assert "**Minors.**" not in text
    assert "**Certain**" not in text
    assert "**Weak where**" in text
