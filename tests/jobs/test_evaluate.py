"""Evaluations as users run them: processes of their own, on a real cluster, on real files."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.evaluate import main
from lib.common.errors import UserError
from lib.datasets.labelled_faces import FACE_SCHEMA
from lib.evaluation import metrics
from lib.evaluation.results import EXAMPLES
from lib.models.bundle import read_bundle
from lib.scoring import on_this_machine
from lib.scoring.stages.rows import model_id
from tests.made_predictions import predictions
from tests.nasty import jpeg
from tests.ray_head import PROJECT, RayHead, run_job, without_cluster

EVALUATE, SCORE = "jobs.evaluate", "jobs.score"
COUNT, BROKEN = on_this_machine.FEW_IMAGES + 4, 3
"""Faces: enough that a cluster labels them."""
PLOTS = {"true_against_predicted", "error_by_age_band", "gender_roc", "gender_reliability"}
SEPARATION = "class_separation"


def face_bytes(number: int) -> bytes:
    """A picture as far as the job is concerned; the last ones are none."""
    if number >= COUNT - BROKEN:
        return f"no picture {number}".encode()
    small = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
    return jpeg(small.repeat(16, 0).repeat(16, 1))


@pytest.fixture(scope="module")
def known_faces() -> pa.Table:
    """Labelled faces, with the columns of jobs/prepare.py."""
    rng = np.random.default_rng(1)
    images = [face_bytes(number) for number in range(COUNT)]
    ages = rng.integers(0, 100, COUNT).astype(np.int16)
    columns = {
        "image": images,
        **dict.fromkeys(("age", "age_low", "age_high"), ages),
        "gender": rng.choice(["female", "male"], COUNT),
        "identity": [None] * COUNT,
        "group": rng.choice(np.array(["a", "b", None], object), COUNT),
        "source": ["made"] * COUNT,
        "source_row": range(COUNT),
        "width": [80] * COUNT,
        "height": [80] * COUNT,
        "sha256": [hashlib.sha256(image).hexdigest() for image in images],
    }
    return pa.table(columns, schema=FACE_SCHEMA)


@pytest.fixture(scope="module")
def data(known_faces: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faces in two files of the test split; the train split holds nothing."""
    folder = tmp_path_factory.mktemp("prepared") / "faces"
    for split in ("train", "test"):
        (folder / f"split={split}").mkdir(parents=True)
    pq.write_table(known_faces[:120], folder / "split=test" / "part-00000.parquet")
    pq.write_table(known_faces[120:], folder / "split=test" / "part-00001.parquet")
    pq.write_table(known_faces[:0], folder / "split=train" / "part-00000.parquet")
    return folder


@pytest.fixture(scope="module")
def archive(known_faces: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same faces as files."""
    folder = tmp_path_factory.mktemp("archive")
    for number, image in enumerate(known_faces["image"].to_pylist()):
        (folder / f"{number:03}.jpg").write_bytes(image)
    return folder


@pytest.fixture(scope="module")
def table(known_faces: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth about the files, in columns with names of their own."""
    truth = known_faces.select(["age", "gender", "group"]).to_pandas()
    truth.insert(0, "file", [f"elsewhere/{number:03}.jpg" for number in range(COUNT)])
    truth["spread"] = np.random.default_rng(2).uniform(1, 5, COUNT)
    path = tmp_path_factory.mktemp("table") / "truth.csv"
    truth.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def evaluation(
    head: RayHead, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The model, evaluated on the test split: the output and what was printed."""
    output = tmp_path_factory.mktemp("evaluation") / "out"
    options = ("--model", model, "--data", data, "--split", "test", "--output", output)
    status, text = run_job(head.environment, output.with_suffix(".log"), EVALUATE, *options)
    assert status == 0, text
    return output, text


@pytest.fixture(scope="module")
def labels(model: Path, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels that jobs.score gives the same faces."""
    output = tmp_path_factory.mktemp("score") / "out"
    options = ("--model", model, "--images", archive, "--output", output, "--detector", "none")
    log = output.with_suffix(".log")
    status, text = run_job(without_cluster(), log, SCORE, *options, "--age-distribution")
    assert status == 0, text
    return output / "labels"


def figures(output: Path) -> dict[str, Any]:
    return json.loads((output / "metrics.json").read_text())


def columns(**names: str) -> list[str]:
    return [word for name, column in names.items() for word in (f"--columns.{name}", column)]


def evaluate_labels(labels: Path, truth: Path, output: Path, *more: str) -> dict[str, Any]:
    options = ("--labels", labels, "--truth", truth, "--output", output)
    assert main([*map(str, options), *more]) == 0
    return figures(output)


def label_frame(labels: Path) -> pd.DataFrame:
    """The labels in the order of the faces."""
    rows = pq.ParquetDataset(sorted(labels.glob("*.parquet"))).read().to_pandas()
    return rows.sort_values("uri").reset_index(drop=True)


def by_hand(labels: pd.DataFrame, faces: pa.Table, sigma: pd.Series) -> metrics.AllPredictions:
    female = np.where(labels["gender"] == "female", labels.gender_score, 1 - labels.gender_score)
    most_likely = [np.nan if d is None else np.argmax(d) for d in labels["age_distribution"]]
    return predictions(
        true_age=faces["age"].to_numpy().astype(np.float64),
        true_gender=np.array(faces["gender"].to_pylist(), object),
        age=labels["age"].to_numpy(np.float64),
        female=female.astype(np.float64),
        argmax=np.array(most_likely, np.float64),
        low=labels["age_low"].to_numpy(np.float64),
        high=labels["age_high"].to_numpy(np.float64),
        sigma=sigma.to_numpy(np.float64),
        group=np.array(faces["group"].to_pylist(), object),
    )


def numbers(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries by their path."""
    if isinstance(tree, Mapping):
        return {k: v for key in tree for k, v in numbers(tree[key], f"{path}/{key}").items()}
    return {path: tree}


def plot_files(output: Path) -> set[str]:
    return {file.name for file in (output / "plots").iterdir()}


def both_formats(names: set[str]) -> set[str]:
    return {f"{name}.{ending}" for name in names for ending in ("png", "svg")}


def test_a_model_on_labelled_faces(
    evaluation: tuple[Path, str], known_faces: pa.Table, data: Path, model: Path
) -> None:
    output, text = evaluation
    result = figures(output)
    digests = "\n".join(sorted(known_faces["sha256"].to_pylist()))
    assert result["evaluated"] == {
        "model": model_id(read_bundle(model)),
        "data": str(data),
        "split": "test",
        "data_sha256": hashlib.sha256(digests.encode()).hexdigest(),
        "detector": "none",
        "mirror": False,
    }
    assert result["versions"]["ray"]
    assert result["count"] == COUNT
    assert result["age"]["count"] == result["gender"]["count"] == COUNT - BROKEN
    assert plot_files(output) == both_formats(PLOTS | {SEPARATION})
    assert (output / "metrics.txt").read_text() in text
    assert "mean absolute error" in text


def test_faces_without_a_label_are_counted_and_named(evaluation: tuple[Path, str]) -> None:
    output, text = evaluation
    result = figures(output)
    assert result["statuses"] == {"ok": COUNT - BROKEN, "decode_error": BROKEN}
    assert result["age"]["missing"] == result["gender"]["missing"] == BROKEN
    assert result["without_label"]["count"] == BROKEN <= EXAMPLES
    for number, line in zip(
        range(COUNT - BROKEN, COUNT), sorted(result["without_label"]["examples"]), strict=True
    ):
        assert line.startswith(f"made:{number}: decode_error: ")
        assert line in text


def test_the_two_jobs_say_the_same_of_the_same_faces(
    evaluation: tuple[Path, str], labels: Path, table: Path, tmp_path: Path
) -> None:
    names = columns(path="file", group="group")
    of_labels = numbers(evaluate_labels(labels, table, tmp_path, *names))
    of_model = numbers(figures(evaluation[0]))
    compared = [key for key in of_model if not key.startswith(("/evaluated", "/without_label"))]
    assert len(compared) > 200
    for key in compared:
        assert of_labels[key] == pytest.approx(of_model[key], abs=1e-3), key


def test_labels_that_are_there_already(
    labels: Path, table: Path, known_faces: pa.Table, tmp_path: Path
) -> None:
    names = columns(path="file", group="group", sigma="spread")
    result = evaluate_labels(labels, table, tmp_path / "new" / "out", *names)
    expected = metrics.evaluate(
        by_hand(label_frame(labels), known_faces, pd.read_csv(table)["spread"])
    )
    assert {key: result[key] for key in expected} == json.loads(json.dumps(expected))
    assert result["age"]["epsilon_error"] > 0
    assert result["evaluated"]["matched_by"] == "file name"
    assert result["evaluated"]["matched"] == COUNT
    assert plot_files(tmp_path / "new" / "out") == both_formats(PLOTS | {SEPARATION})


def test_what_finds_no_partner_is_counted(
    labels: Path, table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = pd.read_csv(table).rename(columns={"file": "path"})[:50]
    truth["path"] = label_frame(labels)["uri"][:50]
    truth.loc[[3, 4], "path"] = ["/nowhere/a.jpg", None]
    truth.to_parquet(tmp_path / "truth.parquet")
    caplog.set_level("INFO")
    about = evaluate_labels(labels, tmp_path / "truth.parquet", tmp_path / "out")["evaluated"]
    assert about["matched_by"] == "uri"
    assert (about["matched"], about["only_in_truth"], about["only_in_labels"]) == (
        48,
        2,
        COUNT - 48,
    )
    assert (
        "48 images matched by uri · 2 (such as '/nowhere/a.jpg') only in the truth" in caplog.text
    )


def test_without_distributions_the_rest_is_there(
    labels: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    rows = pq.ParquetDataset(sorted(labels.glob("*.parquet"))).read()
    pq.write_table(rows.drop_columns("age_distribution"), plain / "part.parquet")
    names = columns(path="file")
    evaluate_labels(labels, table, tmp_path / "out", *names)
    capsys.readouterr()
    result = evaluate_labels(plain, table, tmp_path / "out", *names)
    assert result["age_argmax"] is None
    assert result["age"]["count"] == COUNT - BROKEN
    assert plot_files(tmp_path / "out") == both_formats(PLOTS)
    assert "no plot class_separation" in capsys.readouterr().out


LABELS_AND_TRUTH = ("--labels", "{labels}", "--truth", "{table}", "--columns.path", "file")
MODEL_AND_DATA = ("--model", "{model}", "--data", "{data}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to evaluate: give --data, or --labels and --truth"),
        (("--model", "{model}"), "nothing to evaluate"),
        ((*MODEL_AND_DATA, *LABELS_AND_TRUTH), "not both"),
        (("--model", "{model}", *LABELS_AND_TRUTH), "not both"),
        (("--labels", "{labels}"), "--labels and --truth need each other"),
        (("--truth", "{table}"), "--labels and --truth need each other"),
        (("--data", "{data}", "--split", "tset"), "--split cannot be 'tset'; choose from train"),
        (("--model", "/nowhere", "--data", "{data}"), "no model at '/nowhere'"),
        (("--model", "{model}", "--data", "/nowhere"), "no Parquet files in '/nowhere/split=test'"),
        ((*MODEL_AND_DATA, "--split", "val"), "it should be the split val"),
        ((*MODEL_AND_DATA, "--split", "train"), "the split train of .* holds no faces"),
        (("--model", "{model}", "--data", "{other}"), "has no column image"),
        (("--labels", "/nowhere", *LABELS_AND_TRUTH[2:]), "no Parquet files in '/nowhere'"),
        (("--labels", "{damaged}", *LABELS_AND_TRUTH[2:]), "cannot read"),
        (("--labels", "{other}/split=test", *LABELS_AND_TRUTH[2:]), "has no column uri, status"),
        ((*LABELS_AND_TRUTH[:3], "/nowhere.csv"), "cannot read --truth '/nowhere.csv': No such"),
        (LABELS_AND_TRUTH[:4], "truth.csv has no column path; it has file, age"),
        ((*LABELS_AND_TRUTH, "--columns.sigma", "sd"), "truth.csv .*'sd'"),
        ((*LABELS_AND_TRUTH, "--columns.path", "group"), "the labels have '.*000.jpg', the truth"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    options: tuple[str, ...],
    message: str,
    made: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        main([*(o.format(**made) for o in options), "--output", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def made(
    model: Path, data: Path, archive: Path, table: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Inputs by name, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("inputs")
    other, damaged, rows = folder / "other", folder / "damaged", folder / "labels"
    for made_here in (other / "split=test", damaged, rows):
        made_here.mkdir(parents=True)
    pq.write_table(pa.table({"something": [1]}), other / "split=test" / "part.parquet")
    (damaged / "part.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(few_labels(archive), rows / "part.parquet")
    return {
        "model": model, "data": data, "table": table,
        "other": other, "damaged": damaged, "labels": rows,
    }  # fmt: skip


def few_labels(archive: Path) -> pa.Table:
    """Two rows of a labelling, made by hand."""
    return pa.table(
        {
            "uri": [str(archive / "000.jpg"), str(archive / "001.jpg")],
            "status": ["ok", "no_face"],
            "error": pa.nulls(2, pa.string()),
            **{name: pa.array([30, None], pa.float32()) for name in ("age", "age_low", "age_high")},
            "gender": ["male", None],
            "gender_score": pa.array([0.75, None], pa.float32()),
            "model": ["by hand"] * 2,
        }
    )


def test_labels_by_hand(made: Mapping[str, Path], tmp_path: Path) -> None:
    """One face is 30 and so it is said, the other was not found."""
    truth = tmp_path / "truth.csv"
    truth.write_text("path,age,gender\n000.jpg,32.5,m\n001.jpg,40,f\n")
    result = evaluate_labels(made["labels"], truth, tmp_path / "out")
    assert result["age"]["mae"] == 2.5
    assert (result["age"]["count"], result["age"]["missing"]) == (1, 1)
    assert result["gender"]["confusion"]["male"] == {"female": 0, "male": 1}
    assert result["statuses"] == {"ok": 1, "no_face": 1}
    assert result["without_label"]["examples"] == ["001.jpg: no_face"]


def test_an_output_that_cannot_be_is_refused_at_once(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to --output .*file.*: File exists"):
        main(["--data", str(data), "--output", str(tmp_path / "file")])


def test_a_mistake_costs_no_long_imports(data: Path, tmp_path: Path) -> None:
    """What takes seconds to import comes in only when all options have been checked."""
    options = ("--model", "/nowhere", "--data", str(data), "--output", str(tmp_path / "out"))
    status, text = run_job(dict(os.environ), tmp_path / "log", EVALUATE, *options)
    assert status == 2
    assert text.startswith("error: no model at '/nowhere'")
    assert text.count("\n") == 1
    code = "import sys, jobs.evaluate; print({'ray', 'keras', 'matplotlib'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True)
    assert process.stdout.strip() == b"set()"
