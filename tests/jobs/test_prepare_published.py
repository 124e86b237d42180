"""jobs.prepare on made-up files with the layout of published data sets."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import prepare
from lib.common.errors import UserError
from lib.datasets.labelled_faces import LabelledFaces
from lib.datasets.labels import SPLITS
from lib.datasets.registry import DATASETS
from lib.images import Limits, decode
from lib.storage.folder import folder
from lib.training.faces import read_labels
from tests.made_faces import make_faces
from tests.nasty import jpeg, quadrants

SIDE = 64


@dataclass(frozen=True)
class Published:
    """A data set as it is published.

    Attributes:
        option: with the files of labels; empty: the names of the images are the labels.
        labels: text of each file, by name.
        images: names of the images below the folder that is given.
        rules: of each row the rule that drops it; empty: it is kept.
        faces: what is known of the first face that is kept: age, its band, gender, identity, group.
    """

    option: str
    labels: Mapping[str, str]
    images: tuple[str, ...]
    rules: tuple[str, ...]
    faces: tuple[int, int, int, str | None, str | None, str | None]


FOLD = (
    "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\t"
    "fiducial_score\n"
)
OF_FACE = "0\t0\t816\t816\t0\t0\t10\n"
BOXES = "face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"
NO_PERSON = "-1,-1,-1,-1"

PUBLISHED = {
    "fairface": Published(
        option="fairface-labels",
        labels={
            "fairface_label_train.csv": "file,age,gender,race,service_test\n"
            "train/1.jpg,50-59,Male,East Asian,True\n"
            "train/2.jpg,more than 70,Female,Indian,False\n"
            "train/3.jpg,3-Sep,Female,Indian,False\n",
            "fairface_label_val.csv": "file,age,gender,race,service_test\n"
            "val/1.jpg,0-2,Female,Black,False\n",
        },
        images=("train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg"),
        rules=("", "", "impossible_age", ""),
        faces=(54, 50, 59, "male", None, "East Asian"),
    ),
    "adience": Published(
        option="adience-folds",
        labels={
            "fold_0_data.txt": FOLD
            + f"1@N03\t10_o.jpg\t1\t(25, 32)\tf\t{OF_FACE}"
            + f"1@N03\t11_o.jpg\t2\t35\tm\t{OF_FACE}"
            + f"2@N04\t12_o.jpg\t3\t(8, 23)\tu\t{OF_FACE}"
            + f"2@N04\t13_o.jpg\t3\tNone\tf\t{OF_FACE}",
            "fold_1_data.txt": FOLD + f"3@N05\t14_o.jpg\t4\t(60, 100)\t\t{OF_FACE}",
        },
        images=(
            "1@N03/landmark_aligned_face.1.10_o.jpg",
            "1@N03/landmark_aligned_face.2.11_o.jpg",
        ),
        rules=("", "", "unknown_gender", "impossible_age", "unknown_gender"),
        faces=(28, 25, 32, "female", "1@N03", None),
    ),
    "agedb": Published(
        option="",
        labels={},
        images=("0_AnneMiller_35_f.jpg", "1_AnneMiller_40_f.jpg", "2_JoeBloggs_101_m.jpg", "x.jpg"),
        rules=("", "", "impossible_age", "unknown_gender"),
        faces=(35, 35, 35, "female", "AnneMiller", None),
    ),
    "appa-real": Published(
        option="appa-real-labels",
        labels={
            "gt_avg_train.csv": "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age\n"
            "000000.jpg,36,5.08,1.64,4\n000001.jpg,39,24.59,4.09,18\n",
            "gt_avg_valid.csv": "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age\n"
            "004113.jpg,38,40.1,4.2,43\n",
        },
        images=(
            "train/000000.jpg",
            "train/000000.jpg_face.jpg",
            "train/000001.jpg_face.jpg",
            "valid/004113.jpg",
        ),
        rules=("", "", "missing_image"),
        faces=(4, 4, 4, None, None, None),
    ),
    "lagenda": Published(
        option="lagenda-labels",
        labels={
            "lagenda_annotation.csv": f"img_name,age,gender,{BOXES}\n"
            f"lag_benchmark/a.jpg,30,M,0,0,64,48,{NO_PERSON}\n"
            f"lag_benchmark/a.jpg,20,F,64,0,128,48,{NO_PERSON}\n"
            f"lag_benchmark/a.jpg,-1,-1,0,48,64,96,{NO_PERSON}\n"
            "lag_benchmark/a.jpg,50,M,-1,-1,-1,-1,10,10,50,90\n"
            f"lag_benchmark/a.jpg,60,M,500,10,560,70,{NO_PERSON}\n"
            f"lag_benchmark/a.jpg,70,M,0,0,20,20,{NO_PERSON}\n",
        },
        images=("lag_benchmark/a.jpg",),
        rules=("", "", "unknown_gender", "no_box", "box_outside", "too_small"),
        faces=(30, 30, 30, "male", "lag_benchmark/a.jpg", None),
    ),
    "imdb-clean": Published(
        option="imdb-clean-labels",
        labels={
            "imdb_train_new_1024.csv": "filename,age,gender,x_min,y_min,x_max,y_max\n"
            "48/nm0000048_rm1_1942-11-7_2007.jpg,65,M,64,48,128,96\n",
            "imdb_test_new_1024.csv": "filename,age,gender,x_min,y_min,x_max,y_max\n"
            "49/nm0000049_rm2_1952-1-17_1990.jpg,38,F,0,0,64,48\n",
        },
        images=("48/nm0000048_rm1_1942-11-7_2007.jpg", "49/nm0000049_rm2_1952-1-17_1990.jpg"),
        rules=("", ""),
        faces=(65, 65, 65, "male", "nm0000048", None),
    ),
}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run here, one after the other: a cluster is not what these tests are about."""
    monkeypatch.setattr(prepare, "ingest_shards", lambda ingest, shards: map(ingest, shards))


def write(root: Path, published: Published) -> list[str]:
    """Write labels and images; gives the options of jobs.prepare."""
    for number, name in enumerate(published.images):
        file = root / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(np.roll(quadrants(128, 96), number, axis=1)))
    files = [root / name for name in published.labels]
    for file in files:
        file.write_text(published.labels[file.name])
    options = [f"--{published.option}", *map(str, files)] if published.option else []
    return [*options, "--images", str(root / "images"), "--output", str(root / "out")]


def prepared(root: Path) -> tuple[pa.Table, dict[int, str]]:
    """The faces by row, and the rule of each dropped row."""
    files = sorted((root / "out" / "faces").rglob("*.parquet"))
    faces = pa.concat_tables([pq.ParquetFile(file).read() for file in files])
    dropped = pq.read_table(root / "out" / "dropped").to_pylist()
    return faces.sort_by("source_row"), {row["source_row"]: row["rule"] for row in dropped}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_row_is_kept_or_dropped_by_a_rule(name: str, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    assert prepare.main(["--source", name, *write(tmp_path, published)]) == 0
    faces, dropped = prepared(tmp_path)
    rules = dict(enumerate(published.rules))
    assert dropped == {row: rule for row, rule in rules.items() if rule}
    assert faces["source_row"].to_pylist() == [row for row, rule in rules.items() if not rule]
    first = faces.slice(0, 1).to_pylist()[0]
    known = ("age", "age_low", "age_high", "gender", "identity", "group")
    assert tuple(first[name] for name in known) == published.faces
    assert set(faces["source"].to_pylist()) == {name}
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert DATASETS[record["fingerprint"]["source"]].terms


@pytest.mark.usefixtures("in_process")
def test_each_box_is_a_face_of_its_own(tmp_path: Path) -> None:
    """The two faces in the upper half of the photograph: squares, black beyond the boxes' picture."""
    prepare.main(["--source", "lagenda", *write(tmp_path, PUBLISHED["lagenda"])])
    faces, _ = prepared(tmp_path)
    photograph = decode(jpeg(quadrants(128, 96)), Limits()).pixels
    for face, left in zip(faces.to_pylist(), (0, 64), strict=True):
        assert (face["width"], face["height"]) == (64, 48)
        pixels = decode(face["image"], Limits()).pixels
        assert pixels.shape == (64, 64, 3)
        assert pixels[:6].max() < 16  # the square reaches beyond the picture
        expected = photograph[:48, left : left + 64]
        assert np.abs(pixels[8:56].astype(int) - expected).mean() < 4
    assert len(set(faces["sha256"].to_pylist())) == 2


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("age", "years"), [("real", [4, 18]), ("apparent", [5, 25])])
def test_the_age_of_appa_real_is_chosen(age: str, years: list[int], tmp_path: Path) -> None:
    command = ["--source", "appa-real", *write(tmp_path, PUBLISHED["appa-real"])]
    prepare.main([*command, "--appa-real-age", age])
    assert prepared(tmp_path)[0]["age"].to_pylist() == years


@pytest.mark.usefixtures("in_process")
def test_bands_are_trained_on(tmp_path: Path) -> None:
    shares = ["--shares", "1", "0", "0"]
    prepare.main(["--source", "fairface", *write(tmp_path, PUBLISHED["fairface"]), *shares])
    faces = LabelledFaces(folder(tmp_path / "out" / "faces"), SPLITS[0])
    labels = read_labels(faces)
    assert sorted(labels.spans["age"].tolist()) == [[0, 2], [50, 59], [70, 100]]
    assert sorted(labels.classes["age"]) == [1, 54, 85]


def test_faces_of_earlier_versions_have_exact_ages(tmp_path: Path) -> None:
    """They lack the columns of bands."""
    faces = LabelledFaces(folder(make_faces(tmp_path, train=5, val=5)), "train")
    assert read_labels(faces).spans == {}
    truth = faces.truth()
    assert truth["age_low"] == truth["age_high"] == truth["age"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda root: ["--source", "fairface"], "--source fairface needs --fairface-labels"),
        (
            lambda root: ["--source", "utkface", "--lagenda-labels", str(root / "x.csv")],
            "--lagenda-labels is for --source lagenda, not for utkface",
        ),
        (
            lambda root: ["--source", "fairface", "--fairface-labels", str(root / "no.csv")],
            "cannot read .*no.csv.*: No such file",
        ),
        (
            lambda root: ["--source", "fairface", "--fairface-labels", str(root / "x.csv")],
            "x.csv has no column race; it has file, age, gender",
        ),
        (
            lambda root: ["--source", "appa-real", "--appa-real-labels", str(root / "x.csv")],
            "x.csv' is none of gt_avg_train.csv",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: Callable[[Path], list[str]], says: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("file,age,gender\n")
    more = ["--images", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=says):
        prepare.main([*arguments(tmp_path), *more])
