"""Columns of quality and doubt in label rows, from a real model and a detector that was told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lib.common.errors import UserError
from lib.faces.detections import Detections
from lib.faces.quality import FRONTAL, sharpness
from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.labeller import Labeller
from lib.models.bundle import Bundle
from lib.models.certainty import Certainty
from lib.scoring.schema import label_schema
from lib.scoring.stages.detect import Detect, DetectInBatches
from lib.scoring.stages.face_arrays import faces_of
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import Chain, Stage
from lib.tasks.under_age import UnderAge
from tests.bundles import make_bundle
from tests.nasty import jpeg

WIDTH, HEIGHT = 96, 64
BOXES = np.array([[0, 20, 30, 30], [50, 10, 20, 20]], np.float32)
HEAD = (8 * FRONTAL[:, :2] + (60, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def batch() -> pa.Table:
    """A picture, a text, and a name without bytes."""
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return pa.table(
        {
            "id": range(3),
            "uri": ["picture", "text", "nothing"],
            "data": pa.array([jpeg(picture), b"text", None], pa.binary()),
            "status": [None, None, "not_found"],
            "error": [None, None, "no such file"],
        }
    )


class TwoFaces:
    """One at the border whose landmarks lie on one spot, and a frontal one."""

    canvas, at_a_time = WIDTH, 1

    def detect(self, images: Sequence[object]) -> list[Detections]:
        landmarks = np.stack([np.full((5, 2), 9, np.float32), HEAD])
        found = Detections(BOXES, np.array([0.9, 0.8], np.float32), landmarks)
        return [found for _ in images]


@pytest.fixture
def two_faces(monkeypatch: pytest.MonkeyPatch) -> DetectorSpec:
    monkeypatch.setattr(DetectorSpec, "load", lambda *_: TwoFaces())
    return DetectorSpec("mtcnn")


def rows(bundle: Bundle, batch: pa.Table, detector: DetectorSpec, threshold: int = 18) -> pa.Table:
    stages: list[Stage] = [
        Detect(detector, bundle.crop, Limits(), 1),
        Predict(bundle, tuple(bundle.networks), 1),
        Label(bundle, with_distribution=True, threshold=threshold),
    ]
    labelled = Chain(stages)(batch)
    assert labelled.schema.equals(label_schema(with_distribution=True, threshold=threshold))
    return labelled


def with_card(bundle: Bundle, **facts: object) -> Bundle:
    return replace(bundle, card=replace(bundle.card, **facts))  # type: ignore[arg-type]


def test_faces_of_a_photograph(bundle: Bundle, batch: pa.Table, two_faces: DetectorSpec) -> None:
    picture, *errors = rows(bundle, batch, two_faces).to_pylist()
    at_border, inside = picture["faces"]
    assert (at_border["cut"], inside["cut"], picture["cut"]) == (True, False, True)
    assert at_border["pose"] is None  # its landmarks say nothing
    assert inside["pose"] == pytest.approx({"yaw": 0, "pitch": 0, "roll": 0}, abs=0.01)
    assert at_border["sharpness"] > 0 < inside["sharpness"]
    assert picture["sharpness"] == at_border["sharpness"]
    for row in errors:
        assert row["faces"] == []
        assert row["sharpness"] is row["pose"] is row["cut"] is row["certain"] is None
        assert row["p_under_18"] is None


def test_the_sharpness_is_that_of_the_crop(
    bundle: Bundle, batch: pa.Table, two_faces: DetectorSpec
) -> None:
    """Also where threads detect in batches for a GPU."""
    side = bundle.crop.size
    for stage in (Detect, DetectInBatches):
        found = Chain([stage(two_faces, bundle.crop, Limits(), 1)])(batch)
        crops = faces_of(found, "crops", (side, side, 3))
        expected = [sharpness(crop) for crop in crops]
        np.testing.assert_allclose(faces_of(found, "sharpness"), expected, rtol=1e-6)
        assert len(set(expected)) == 2


def test_face_crops_have_a_sharpness_and_no_pose(bundle: Bundle, batch: pa.Table) -> None:
    picture = rows(bundle, batch, DetectorSpec("none")).to_pylist()[0]
    assert picture["sharpness"] > 0
    assert picture["pose"] is picture["cut"] is picture["faces"][0]["landmarks"] is None


def test_the_threshold_names_the_column(bundle: Bundle, batch: pa.Table) -> None:
    """Without a calibration the probability is the sum of the classes below."""
    for threshold in (18, 21, 65):
        row = rows(bundle, batch, DetectorSpec("none"), threshold).to_pylist()[0]
        below = sum(row["age_distribution"][:threshold])
        assert row[f"p_under_{threshold}"] == pytest.approx(below, abs=1e-5)
        assert row["faces"][0][f"p_under_{threshold}"] == row[f"p_under_{threshold}"]
        assert sum(name.startswith("p_under") for name in row) == 1


def test_the_card_calibrates(bundle: Bundle, batch: pa.Table) -> None:
    calibrated = with_card(bundle, under_age=UnderAge((18,), (0.0,), (np.log(0.3 / 0.7),)))
    row = rows(calibrated, batch, DetectorSpec("none")).to_pylist()[0]
    assert row["p_under_18"] == pytest.approx(0.3)


def test_the_rule_of_the_card_decides(
    bundle: Bundle, batch: pa.Table, two_faces: DetectorSpec
) -> None:
    """Each face by its own values; what is unknown is no reason; without a rule nothing is said."""
    assert rows(bundle, batch, two_faces)["certain"].null_count == 3
    faces = rows(bundle, batch, two_faces).to_pylist()[0]["faces"]
    sharper, blunter = sorted((face["sharpness"] for face in faces), reverse=True)
    by_sharpness = Certainty(least_sharpness=(sharper + blunter) / 2)
    found = rows(with_card(bundle, certainty=by_sharpness), batch, two_faces).to_pylist()
    assert [face["certain"] for face in found[0]["faces"]] == [
        face["sharpness"] == sharper for face in faces
    ]
    assert found[0]["certain"] == found[0]["faces"][0]["certain"]
    assert found[1]["certain"] is None
    by_pose = with_card(bundle, certainty=Certainty(most_turned=-1))
    assert [face["certain"] for face in rows(by_pose, batch, two_faces).to_pylist()[0]["faces"]] == [
        True, False
    ]  # fmt: skip
    of_gender_alone = replace(
        with_card(bundle, certainty=Certainty(most_age_std=-1)),
        networks={"gender": bundle.networks["gender"]},
    )
    row = rows(of_gender_alone, batch, DetectorSpec("none")).to_pylist()[0]
    assert row["certain"] is True
    assert row["p_under_18"] is None


def test_no_image_has_the_same_schema(bundle: Bundle, batch: pa.Table) -> None:
    ruled = with_card(bundle, certainty=Certainty(least_gender_score=0.6))
    assert len(rows(ruled, batch.slice(0, 0), DetectorSpec("none"), 21)) == 0
    assert len(rows(ruled, batch.slice(1), DetectorSpec("none"), 21)) == 2


def test_the_labeller_has_them_too(
    bundle: Bundle, batch: pa.Table, two_faces: DetectorSpec
) -> None:
    labeller = Labeller(bundle.folder, "mtcnn", threshold=30)
    _, inside = labeller.label(batch["data"][0].as_py())
    row = rows(bundle, batch, two_faces, 30).to_pylist()[0]["faces"][1]
    assert inside.p_under == row["p_under_30"]
    assert inside.pose is not None
    assert inside.pose._asdict() == row["pose"]
    assert (inside.cut, inside.certain, inside.sharpness) == (False, None, row["sharpness"])


def test_what_is_no_threshold_is_refused() -> None:
    with pytest.raises(UserError, match="--threshold must be in"):
        Labeller(threshold=0)


def test_options_of_jobs_score(bundle: Bundle, tmp_path: Path) -> None:
    from jobs.score import Options

    for threshold in (0, 101):
        with pytest.raises(UserError, match="--threshold must be in"):
            Options(("x",), "y", threshold=threshold).check()
    with pytest.raises(UserError, match="--carry p_under_21: labels have a column of that name"):
        Options(("x",), "y", carry=("p_under_21",), threshold=21).check()
    Options(("x",), "y", carry=("p_under_18",), threshold=21).check()
    prints = [Options(("x",), "y", threshold=age).fingerprint(bundle) for age in (18, 21)]
    assert prints[0] != prints[1]
    assert [print_["threshold"] for print_ in prints] == [18, 21]
