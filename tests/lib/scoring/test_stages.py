"""The stages without Ray, on a real model and real encoded images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lib.faces.crop import crop_faces
from lib.faces.detections import Detections
from lib.faces.registry import DetectorSpec
from lib.images import Limits, decode
from lib.models.bundle import Bundle
from lib.network_input import CropSpec
from lib.scoring.schema import STATUSES, face_columns, label_schema, schema_table
from lib.scoring.stages import stage
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.face_arrays import face_column, face_counts, faces_of, main_faces_of
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label, model_id
from lib.scoring.stages.stage import Chain, Stage
from lib.tasks.expectation import expected_age
from tests.bundles import make_plain_bundle
from tests.nasty import jpeg
from tests.ray_head import PROJECT

NO_DETECTOR = DetectorSpec("none")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_plain_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Twenty pictures, a text and a name without a file."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(20):
        picture = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(10, 0).repeat(8 + number, 1)
        (folder / f"{number:02}.jpg").write_bytes(jpeg(picture))
    (folder / "20.jpg").write_bytes(b"text")
    return pa.table({"id": range(22), "uri": [str(folder / f"{n:02}.jpg") for n in range(22)]})


def finding(bundle: Bundle) -> list[Stage]:
    return [Fetch(10**6), Detect(NO_DETECTOR, bundle.crop, Limits(), 1)]


def test_one_row_each_in_the_schema(
    bundle: Bundle, manifest: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "REPORT_EVERY_SECONDS", 0.0)
    seconds: list[dict[str, float]] = []
    stages = [*finding(bundle), Predict(bundle, ("age", "gender"), 1), Label(bundle, True)]
    rows = Chain(stages, seconds.append)(manifest)
    assert rows.schema.equals(label_schema(with_distribution=True))
    found = rows.to_pylist()
    assert [row["id"] for row in found] == list(range(22))
    assert [row["status"] for row in found] == ["ok"] * 20 + ["decode_error", "not_found"]
    assert {row["status"] for row in found} <= STATUSES.keys()
    assert {row["model"] for row in found} == {model_id(bundle)}
    for row in found[:20]:
        (face,) = row["faces"]
        assert {c.name: row[c.name] for c in face_columns()} == {
            c.name: face[c.name] for c in face_columns()
        }
        expected = expected_age([row["age_distribution"]])
        assert row["age"] == pytest.approx(expected.age[0], abs=1e-3)
        assert row["age_low"] <= row["age"] <= row["age_high"]
        assert row["gender_score"] >= 0.5
        assert row["face_score"] is None  # nobody looked for the face
        assert row["box"] == {"x": 0, "y": 0, "width": row["width"], "height": 80}
    for row in found[20:]:
        assert row["error"]
        assert row["age"] is row["gender"] is row["box"] is row["width"] is None
        assert row["faces"] == []
    assert len({row["age"] for row in found[:20]}) == 20
    assert seconds[0].keys() == {"fetch", "decode", "crop", "age+gender", "label"}


def test_two_models_apart_say_the_same_as_together(bundle: Bundle, manifest: pa.Table) -> None:
    together = [*finding(bundle), Predict(bundle, ("age", "gender"), 1), Label(bundle)]
    apart = [
        *(*finding(bundle), Predict(bundle, ("age",), 1)),
        *(Predict(bundle, ("gender",), 1), Label(bundle)),
    ]
    one, other = Chain(together)(manifest).to_pandas(), Chain(apart)(manifest).to_pandas()
    np.testing.assert_allclose(one["age"], other["age"], atol=1e-3)
    assert one["gender"].tolist() == other["gender"].tolist()


def test_batches_of_any_size_say_the_same(bundle: Bundle, manifest: pa.Table) -> None:
    chain = Chain([*finding(bundle), Predict(bundle, ("age", "gender"), 1), Label(bundle)])
    whole = chain(manifest).to_pandas()
    for size in (1, 7):
        parts = [chain(manifest.slice(start, size)) for start in range(0, 22, size)]
        parted = pa.concat_tables(parts).to_pandas()
        np.testing.assert_allclose(whole["age"], parted["age"], atol=1e-3)
    assert len(chain(manifest.slice(0, 0))) == 0


@pytest.mark.parametrize(
    ("task", "known", "unknown"), [("age", "age_low", "gender"), ("gender", "gender_score", "age")]
)
def test_a_model_of_one_task_leaves_the_other_null(
    task: str, known: str, unknown: str, bundle: Bundle, manifest: pa.Table
) -> None:
    one = replace(bundle, networks={task: bundle.networks[task]})
    labelling = [*finding(one), Predict(one, (task,), 1), Label(one, True)]
    rows = Chain(labelling)(manifest)
    assert rows.schema.equals(label_schema(with_distribution=True))
    whole = Chain([*finding(bundle), Predict(bundle, ("age", "gender"), 1), Label(bundle)])(
        manifest
    )
    assert rows[known].to_pylist() == pytest.approx(whole[known].to_pylist(), nan_ok=True)
    assert rows[unknown].null_count == len(rows)
    assert rows["age_distribution"].null_count == (2 if task == "age" else len(rows))


LANDMARKS_FOUND = np.arange(10, dtype=np.float32).reshape(1, 5, 2)


class FixedDetector:
    """Says that the face is where it was told."""

    canvas, at_a_time = 64, 1

    def __init__(self, box: Sequence[float]) -> None:
        self.box = np.array([box], np.float32)

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        return [Detections(self.box, np.ones(1, np.float32), LANDMARKS_FOUND) for _ in images]


def test_a_small_face_in_a_large_picture_is_cut_from_enough_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """512 pixels are looked at as 64, where the face has 5; its crop of 32 comes from 40."""
    rng = np.random.default_rng(1)
    data = jpeg(rng.integers(0, 256, (64, 64, 3), np.uint8).repeat(8, 0).repeat(8, 1))
    spec = CropSpec(32, "box")
    monkeypatch.setattr(DetectorSpec, "load", lambda *_: FixedDetector((10, 20, 5, 5)))
    batch = pa.table({"id": [0], "uri": ["x"], "data": [data], "status": [None], "error": [None]})
    rows = Chain([Detect(DetectorSpec("mtcnn"), spec, Limits(), 1)])(batch)
    full = decode(data, Limits())
    box = np.array([[80, 160, 40, 40]], np.float32)
    faces = Detections(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
    np.testing.assert_array_equal(faces_of(rows, "boxes", (4,)), box)
    np.testing.assert_array_equal(faces_of(rows, "landmarks", (5, 2)), 8 * LANDMARKS_FOUND)
    expected = crop_faces(full.pixels, faces, spec)
    np.testing.assert_array_equal(faces_of(rows, "crops", expected.shape[1:]), expected)


def test_a_stage_without_its_columns_is_named() -> None:
    batch = pa.table({"id": [0], "uri": ["x"]})
    detect = Detect(NO_DETECTOR, CropSpec(32, "box"), Limits(), 1)
    with pytest.raises(ValueError, match="Detect needs the column 'data'"):
        Chain([detect])(batch)


@pytest.mark.parametrize("shape", [(), (4,), (5, 2), (2, 2, 3)])
def test_arrays_of_faces_come_back_from_columns(shape: tuple[int, ...]) -> None:
    """Also from slices, from several chunks, and where no image has a face."""
    faces = np.random.default_rng(0).random((6, *shape), np.float32)
    counts = [2, 0, 3, 1]
    table = pa.table({"faces": face_column(faces, counts)})
    assert face_counts(table, "faces").tolist() == counts
    np.testing.assert_array_equal(faces_of(table, "faces", shape), faces)
    np.testing.assert_array_equal(faces_of(table.slice(2), "faces", shape), faces[2:])
    np.testing.assert_array_equal(main_faces_of(table, "faces", shape), faces[[0, 2, 5]])
    twice = pa.concat_tables([table.slice(2, 1), table])
    np.testing.assert_array_equal(faces_of(twice, "faces", shape), np.r_[faces[2:5], faces])
    assert faces_of(table.slice(1, 1), "faces", shape).shape == (0, *shape)


def test_the_readme_has_the_schema() -> None:
    assert schema_table() in (PROJECT / "README.md").read_text("utf-8")
