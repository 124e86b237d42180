"""Single images without Ray: the same labels as jobs.score writes."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lib import Face, LabelledImage, Labeller
from lib.common.demo import EXPECTED, make_demo
from lib.common.errors import UserError
from lib.images import Limits
from tests.ray_head import PROJECT, run_job


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    return Labeller()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(str(folder))
    return folder


def score(alone: dict[str, str], images: Path, work: Path) -> dict[str, dict[str, Any]]:
    """The rows of jobs.score by file name."""
    status, text = run_job(
        alone, work / "log", "jobs.score", "--images", images, "--output", work / "out",
        "--age-distribution",
    )  # fmt: skip
    assert status == 0, text
    rows = pq.read_table(work / "out" / "labels").to_pylist()
    return {row["uri"].rpartition("/")[2]: row for row in rows}


def assert_equal(labelled: LabelledImage, row: dict[str, Any]) -> None:
    for name in ("status", "error", "width", "height", "model"):
        assert getattr(labelled, name) == row[name]
    assert len(labelled) == row["face_count"]
    for face, expected in zip(labelled, row["faces"], strict=True):
        assert_same_face(face, expected)


def assert_same_face(face: Face, expected: dict[str, Any]) -> None:
    expected = {**expected, "p_under": expected["p_under_18"]}
    for name, value in vars(face).items():
        match value:
            case float():
                assert value == pytest.approx(expected[name], abs=1e-3), name
            case np.ndarray():
                np.testing.assert_allclose(value, expected[name], atol=1e-4)
            case tuple():
                points = {n: p._asdict() if hasattr(p, "_asdict") else p
                          for n, p in value._asdict().items()}  # type: ignore[attr-defined]  # fmt: skip
                assert points == expected[name]
            case _:
                assert value == expected[name], name


def test_the_demonstration_as_jobs_score_labels_it(
    labeller: Labeller, demo: Path, alone: dict[str, str], tmp_path: Path
) -> None:
    rows = score(alone, demo, tmp_path)
    labels = labeller.label_batch([demo / name for name in EXPECTED])
    assert [image.status for image in labels] == list(EXPECTED.values())
    for name, image in zip(EXPECTED, labels, strict=True):
        assert_equal(image, rows[name])


@pytest.mark.data
def test_photographs_as_jobs_score_labels_them(
    labeller: Labeller, alone: dict[str, str], tmp_path: Path, shared_data: Path
) -> None:
    photos = sorted((shared_data / "photos").glob("*.jpg"))
    rows = score(alone, shared_data / "photos", tmp_path)
    labels = labeller.label_batch(photos)
    assert sum(map(len, labels)) >= 40
    for photo, image in zip(photos, labels, strict=True):
        assert_equal(image, rows[photo.name])


def test_every_kind_of_image_is_the_same_image(labeller: Labeller, demo: Path) -> None:
    file = demo / "portrait.png"
    with Image.open(file) as picture:
        kinds: list[Any] = [file, str(file), f"file://{file}", file.read_bytes(), picture,
                            np.asarray(picture)]  # fmt: skip
        labels = labeller.label_batch(kinds)
    assert [len(image) for image in labels] == [1] * len(kinds)
    assert len({image[0].box for image in labels}) == 1
    assert len({round(image[0].age, 3) for image in labels}) == 1
    face = labels[0][0]
    assert face.landmarks is not None
    left, right = face.landmarks.left_eye, face.landmarks.right_eye
    assert face.box.x < left.x < right.x < face.box.x + face.box.width
    assert face.landmarks.left_mouth.y > face.landmarks.nose.y > left.y > face.box.y


def test_the_orientation_of_a_pillow_image_counts(labeller: Labeller, demo: Path) -> None:
    with Image.open(demo / "rotated_by_exif.jpg") as picture:
        upright = labeller.label(picture)
        turned = labeller.label(np.asarray(picture))
    assert upright.width is not None
    assert (upright.width, upright.height) == (turned.height, turned.width)
    assert len(upright) == 1


def test_a_pillow_image_with_the_size_of_an_earlier_one(labeller: Labeller, demo: Path) -> None:
    """Photo editors leave it in the EXIF of what they export."""
    exif = Image.Exif()
    exif.update({0x0100: 3840, 0x0101: 5760, 0x0103: 5})
    file = io.BytesIO()
    with Image.open(demo / "portrait.png") as picture:
        picture.convert("RGB").save(file, "WEBP", lossless=True, exif=exif)
    with Image.open(file) as exported:
        of_pillow, of_file = labeller.label_batch([exported, file.getvalue()])
    assert (of_pillow.width, of_pillow.height) == (of_file.width, of_file.height)
    assert [face.age for face in of_pillow] == [face.age for face in of_file]
    assert len(of_file) == 1


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (b"", "decode_error"),
        (b"no image", "decode_error"),
        ("/nowhere/picture.jpg", "not_found"),
        (None, "not_found"),
        (5, "unsupported"),
        (np.zeros((4, 4, 3)), "unsupported"),
        (np.zeros((0, 0, 3), np.uint8), "unsupported"),
        (np.zeros((3, 40, 40), np.uint8), "unsupported"),
        (np.zeros((4, 4, 3, 2), np.uint8), "unsupported"),
        (Image.new("F", (8, 8)), "unsupported"),
    ],
)
def test_what_is_no_image_is_a_status(labeller: Labeller, image: Any, status: str) -> None:
    labelled = labeller.label(image)
    assert labelled.status == status
    assert labelled.error
    assert not labelled.ok
    assert list(labelled) == []


def test_grey_arrays_and_arrays_with_alpha(labeller: Labeller, demo: Path) -> None:
    with Image.open(demo / "portrait.png") as picture:
        grey, rgba = (np.asarray(picture.convert(mode)) for mode in ("L", "RGBA"))
        rgb = np.asarray(picture.convert("RGB"))
    labels = labeller.label_batch(
        [grey, grey[:, :, None], grey[:, :, None].repeat(3, 2), rgba, rgb]
    )
    ages = [round(image[0].age, 2) for image in labels]
    assert ages[0] == ages[1] == ages[2]
    assert ages[3] == ages[4]


def test_files_are_limited_by_their_bytes_and_arrays_by_their_pixels() -> None:
    labeller = Labeller(limits=Limits(max_pixels=10_000, max_bytes=9_999))
    array = np.full((100, 100, 3), 9, np.uint8)
    wider = np.full((100, 101, 3), 9, np.uint8)
    allowed = labeller.label_batch([array, Image.fromarray(array), b"\0" * 9_999])
    assert [image.status for image in allowed] == ["no_face", "no_face", "decode_error"]
    refused = labeller.label_batch([wider, Image.fromarray(wider), b"\0" * 10_000])
    assert [(image.status, image.error) for image in refused] == [
        ("too_large", "101x100 pixels; the limit is 10000"),
        ("too_large", "101x100 pixels; the limit is 10000"),
        ("too_large", "10000 bytes; the limit is 9999"),
    ]


def test_an_image_without_a_face(labeller: Labeller) -> None:
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "green").save(file, "PNG")
    labelled = labeller.label(file.getvalue())
    assert (labelled.status, labelled.error) == ("no_face", None)
    assert (labelled.width, labelled.height) == (300, 200)


def test_bad_options_are_refused_at_once() -> None:
    with pytest.raises(UserError, match="--detector cannot be 'haar'"):
        Labeller(detector="haar")
    with pytest.raises(UserError, match=r"no model at '/nowhere'"):
        Labeller("/nowhere")


def test_no_ray_and_no_words_on_the_terminal(demo: Path) -> None:
    program = """if True:
        import sys
        from lib import Labeller
        assert Labeller().label(sys.argv[1]).ok
        assert not [name for name in sys.modules if name.partition(".")[0] == "ray"]
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(demo / "portrait.jpg")],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
