from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib.output.reader import Output
from lib.output.run_record import RunRecord, claim
from lib.report.charts import age_distribution, spread_ages
from lib.report.gallery import rows_at
from lib.report.label_statistics import LabelStatistics, label_statistics
from tests.made_labels import face, row, write_rows

SIZES = {"ok": 40, "no_face": 5, "decode_error": 3}


def random_rows(count: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    rows = []
    for id_ in range(count):
        status = rng.choice(["ok", "no_face", "decode_error"], p=[0.8, 0.15, 0.05])
        faces = [
            face(
                age=float(rng.uniform(0, 100)),
                age_std=float(rng.uniform(0, 40)),
                gender=str(rng.choice(["female", "male"])),
                gender_score=float(rng.uniform(0.5, 1)),
                face_score=float(rng.uniform(0, 1)),
            )
            for _ in range(rng.integers(1, 14) if status == "ok" else 0)
        ]
        error = "broken" if status == "decode_error" else None
        rows.append(row(id_, f"/images/{id_}.jpg", faces, str(status), error))
    return rows


def output_of(folder: Path, rows: list[dict[str, object]], files: int) -> Output:
    claim(folder, RunRecord("jobs.score", {}))
    write_rows(folder, rows, files)
    return Output(str(folder))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    return random_rows(600)


@pytest.fixture(scope="module")
def counted(
    rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> LabelStatistics:
    return label_statistics(output_of(tmp_path_factory.mktemp("labels"), rows, 7), SIZES)


def test_counts_are_those_of_pandas(
    rows: list[dict[str, object]], counted: LabelStatistics
) -> None:
    frame = pd.DataFrame(rows)
    faces = pd.DataFrame(frame["faces"].explode().dropna().tolist())
    assert counted.statuses == Counter(frame["status"])
    assert counted.images == len(frame)
    assert counted.faces == len(faces)
    readable = frame[frame["status"] != "decode_error"]["face_count"].clip(upper=10)
    assert counted.faces_per_image.tolist() == np.bincount(readable, minlength=11).tolist()
    for number, gender in enumerate(("female", "male")):
        ages = faces["age"][faces["gender"] == gender].astype(int)
        assert counted.ages[number].tolist() == np.bincount(ages, minlength=101).tolist()
    expected, _ = np.histogram(faces["gender_score"].astype(np.float32), 50, (0.5, 1))
    assert abs(counted.certainties["gender"] - expected).max() <= 1  # on an edge, by float32
    assert counted.certainties["gender"].sum() == counted.face_scores.sum() == len(faces)
    above = (faces["age_std"] >= 29.75).sum()
    assert counted.age_and_std[:, -1].sum() == above


def test_samples_do_not_depend_on_the_files(
    rows: list[dict[str, object]], counted: LabelStatistics, tmp_path: Path
) -> None:
    shuffled = [rows[n] for n in np.random.default_rng(2).permutation(len(rows))]
    output = output_of(tmp_path, shuffled, 3)
    other = label_statistics(output, SIZES)
    for status, size in SIZES.items():
        ids = [place.id for place in counted.sample(status)]
        assert len(set(ids)) == size
        assert ids == [place.id for place in other.sample(status)]
    read = rows_at(output, other.sample("ok"))
    assert {r["id"] for r in read} == {place.id for place in counted.sample("ok")}
    assert [r["age"] for r in read] == sorted(r["age"] for r in read)
    assert all(r["uri"] == f"/images/{r['id']}.jpg" for r in read)


def test_a_sample_has_no_preference(tmp_path: Path) -> None:
    """Of 4,000 rows a quarter of a sample comes from each quarter, give or take chance."""
    rows = [row(id_, "/a.jpg") for id_ in range(4000)]
    places = label_statistics(output_of(tmp_path, rows, 2), {"no_face": 400}).sample("no_face")
    quarters = np.bincount([place.id // 1000 for place in places])
    assert quarters.sum() == 400
    assert abs(quarters - 100).max() < 35  # four standard deviations


def test_uncertainty_spreads_faces_and_loses_none() -> None:
    faces = np.zeros((101, 61), np.int64)
    faces[50, 20] = 1000  # 50 years ± 10
    faces[0, 10] = 10
    faces[100, 0] = 3
    spread = spread_ages(faces)
    assert spread.sum() == pytest.approx(1013)
    assert spread[40:61].sum() == pytest.approx(1000 * 0.706, abs=3)  # 10.5 of 10 on both sides
    assert spread[98:].sum() == pytest.approx(3, abs=0.01)
    mean = (np.arange(101) * spread_ages(np.where(faces == 1000, faces, 0))).sum() / 1000
    assert mean == pytest.approx(50, abs=0.01)


def test_a_chart_says_what_it_shows(counted: LabelStatistics) -> None:
    chart = age_distribution(counted)
    ages = np.repeat(np.arange(101), counted.ages.sum(axis=0))
    assert f"median of the ages is {np.sort(ages)[len(ages) // 2 - 1 + len(ages) % 2]:.0f}" in (
        chart.sentence
    )
    assert sum(int(cells[1].replace(",", "")) for cells in chart.table.rows) == counted.faces
    assert chart.pictures["light"] != chart.pictures["dark"] != chart.narrow["dark"]
