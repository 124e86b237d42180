"""Preparing as users run it: processes of their own, on a real cluster, on real files."""

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from jobs.prepare import main
from lib.common.errors import UserError
from lib.datasets.image_sources import open_sources
from lib.datasets.labelled_faces import FACE_SCHEMA
from lib.datasets.labels import SPLITS, split_of
from lib.datasets.prepared import DROPPED_SCHEMA
from lib.datasets.utkface import parse_name
from lib.images import Limits, decode
from lib.output.run_record import read
from lib.storage.folder import folder
from tests.made_imdb import KEPT, ROUND, UNNAMED, MadeImdb, make_imdb
from tests.nasty import jpeg, jpeg_turned, make_nasty, quadrants
from tests.ray_head import PROJECT, Job, RayHead, run_job, wait_until
from tests.s3_server import S3Server

ROUNDS = 3
PREPARE = "jobs.prepare"


class Prepared:
    """What a run has written."""

    def __init__(self, output: Path) -> None:
        self.faces: dict[str, pa.Table] = {
            split: pa.concat_tables(
                pq.ParquetFile(file).read() for file in sorted(folder.glob("*.parquet"))
            )
            for split in SPLITS
            for folder in [output / "faces" / f"split={split}"]
        }
        self.dropped = pq.ParquetFile(output / "dropped" / "part-00000.parquet").read()
        self.summary = json.loads((output / "summary.json").read_text())

    @cached_property
    def all_faces(self) -> pd.DataFrame:
        """The faces of all splits."""
        tables = [
            table.append_column("split", pa.array([split] * len(table), pa.string()))
            for split, table in self.faces.items()
        ]
        return pa.concat_tables(tables).to_pandas().set_index("source_row").sort_index()

    @cached_property
    def rules(self) -> dict[int, str]:
        """The rule of each row, `KEPT` for the faces."""
        rules = dict.fromkeys(self.all_faces.index, KEPT)
        return rules | {row["source_row"]: row["rule"] for row in self.dropped.to_pylist()}

    @cached_property
    def details(self) -> dict[int, str | None]:
        """What is said of each dropped row."""
        return {row["source_row"]: row["detail"] for row in self.dropped.to_pylist()}

    def check(self, rows: int) -> None:
        """Whatever was prepared: nothing lost, nothing in two splits."""
        kept = sum(len(table) for table in self.faces.values())
        assert kept + len(self.dropped) == rows == self.summary["rows"]
        assert sorted(self.rules) == list(range(rows))
        assert self.summary["kept"] == kept
        assert Counter(self.summary["dropped"]) + Counter() == Counter(
            self.dropped["rule"].to_pylist()
        )
        assert self.dropped.schema == DROPPED_SCHEMA
        faces = self.all_faces
        assert faces["sha256"].is_unique
        assert (faces.dropna(subset="identity").groupby("identity")["split"].nunique() == 1).all()
        for split, table in self.faces.items():
            assert table.schema == FACE_SCHEMA
            keys = table.to_pandas()
            assert (keys["identity"].fillna(keys["sha256"]).map(split_of) == split).all()


def imdb_options(made: MadeImdb, output: Path) -> list[str]:
    return [
        *("--source", "imdb-wiki", "--metadata", str(made.metadata)),
        *("--images", str(made.tar), "--output", str(output)),
    ]


def run(environment: dict[str, str], output: Path, *options: str) -> str:
    """Run the job, which must succeed, and give what it printed."""
    status, text = run_job(environment, output.with_suffix(".log"), PREPARE, *options)
    assert status == 0, text
    return text


def utkface_tars(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "utkface").glob("*.tar"))


def read_all(tars: Sequence[Path]) -> dict[str, bytes]:
    """Name → bytes of all images."""
    return {
        image.name: image.read(1 << 30)
        for source in open_sources([str(tar) for tar in tars])
        for shard in source.shards()
        for image in shard
    }


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Small ones that stay as they are, and large ones."""
    rng = np.random.default_rng(0)
    sides = [(100, 120), (400, 300), (256, 300), (1200, 900)]
    return [
        jpeg(rng.integers(0, 256, (6, 6, 3), np.uint8).repeat(h // 6, 0).repeat(w // 6, 1))
        for h, w in sides
    ]


@pytest.fixture(scope="module")
def made(images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> MadeImdb:
    return make_imdb(tmp_path_factory.mktemp("made"), images, ROUNDS)


@pytest.fixture(scope="module")
def output(head: RayHead, made: MadeImdb, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "out"
    run(head.environment, output, *imdb_options(made, output))
    return output


def test_every_fault_is_under_its_rule(made: MadeImdb, output: Path) -> None:
    prepared = Prepared(output)
    prepared.check(ROUNDS * ROUND)
    assert list(dict(sorted(prepared.rules.items())).values()) == made.rules
    assert prepared.summary["images"] == {"unnamed": UNNAMED, "repeated": 0, "damage": []}
    assert sorted(path.name for path in output.iterdir()) == [
        *("dropped", "faces", "run.json", "summary.json")
    ]


def test_details_say_what_the_rule_saw(output: Path) -> None:
    details = Prepared(output).details
    assert details[1] == "same_as_row 0"
    assert details[2] == "face_score -inf"
    assert details[3] == "face_score nan"
    assert details[5] == "second_face_score 1.5"
    assert details[7] == "age unknown"
    assert details[10] == "age 120"
    assert details[11] is None
    assert details[14] == "empty file"
    assert details[15] == "width 20, height 30"
    assert details[16] == "same_as_row 16, age 20"
    assert details[17] == "same_as_row 16, age 30"


def test_faces(made: MadeImdb, output: Path) -> None:
    faces = pa.concat_tables(Prepared(output).faces.values()).sort_by("source_row").to_pylist()
    originals = {hashlib.sha256(data).hexdigest(): data for data in read_all([made.tar]).values()}
    for face in faces:
        original = originals[face["sha256"]]
        picture, full = decode(face["image"], Limits()), decode(original, Limits())
        assert (face["width"], face["height"]) == (full.width, full.height)
        assert min(picture.width, picture.height) == min(256, full.width, full.height)
        if min(full.width, full.height) <= 256:
            assert face["image"] == original
    labels = [faces[0][name] for name in ("age", "gender", "identity", "group", "source")]
    assert labels == [20, "male", "nm0000000", None, "imdb"]
    assert faces[1]["gender"] == "female"


def test_once_more_does_nothing_and_otherwise_is_refused(
    made: MadeImdb, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (output / "ingested").mkdir()  # left by a run that was killed in its last moment
    assert main(imdb_options(made, output)) == 0
    assert "prepared already" in caplog.text
    assert not (output / "ingested").exists()
    with pytest.raises(UserError, match="belongs to another run: size was 256, now 100"):
        main([*imdb_options(made, output), "--size", "100"])


def test_cut_tar(alone: dict[str, str], made: MadeImdb, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(made.tar.read_bytes()[: made.tar.stat().st_size // 2])
    output = tmp_path / "out"
    text = run(alone, output, *imdb_options(MadeImdb(made.metadata, cut, made.rules), output))
    prepared = Prepared(output)
    prepared.check(ROUNDS * ROUND)
    assert f"warning: {cut}: the tar cannot be read from byte " in text
    assert len(prepared.summary["images"]["damage"]) == 1
    row = next(row for row, rule in enumerate(made.rules) if prepared.rules[row] != rule)
    assert row >= ROUND  # most of the first half of the bytes belongs to the first rounds
    of_metadata = {"no_face", "low_face_score", "second_face", "unknown_gender", "impossible_age"}
    behind = {prepared.rules[row] for row in range(row, len(made.rules))}
    assert behind == {"missing_image", *of_metadata}


def test_table_and_folder_of_nasty_files(alone: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "all" / "photos"
    expected = make_nasty(folder)
    (folder / "large_turned.jpg").write_bytes(jpeg_turned(quadrants(600, 400), 6))
    (folder / "with space.jpg").write_bytes(jpeg(quadrants(60, 60)))
    expected["large_turned.jpg"] = "ok"
    names = [n for n in expected if n.isprintable() and n.isascii()]
    rows = pd.DataFrame({"file": names, "years": 30.9, "sex": "F", "who": "", "kind": "a"})
    rows.to_csv(tmp_path / "faces.csv", index=False)
    options = [
        *("--source", "table", "--table", str(tmp_path / "faces.csv"), "--columns.path", "file"),
        *("--columns.age", "years", "--columns.gender", "sex", "--columns.identity", "who"),
        *("--columns.group", "kind", "--images", str(tmp_path / "all"), "--size", "48"),
        *("--output", str(tmp_path / "out")),
    ]
    run(alone, tmp_path / "out", *options)
    prepared = Prepared(tmp_path / "out")
    prepared.check(len(names))
    rules = {names[row]: rule for row, rule in prepared.rules.items()}
    for name, status in expected.items():
        if name in rules:
            assert (rules[name] == "unreadable_image") == (status != "ok"), name
    assert rules["one_pixel.png"] == rules["thin.png"] == "too_small"
    faces = prepared.all_faces
    assert set(faces["age"]) == {30}
    assert set(faces["gender"]) == {"female"}
    assert faces["identity"].isna().all()
    assert set(faces["group"]) == {"a"}
    assert all(image.startswith(b"\xff\xd8\xff") for image in faces["image"])
    turned = faces.loc[names.index("large_turned.jpg")].to_dict()
    picture = decode(turned["image"], Limits())
    assert (turned["width"], turned["height"]) == (600, 400)
    assert picture.pixels.shape == (48, 72, 3)
    assert np.abs(picture.pixels[4, 4].astype(int) - quadrants()[0, 0]).max() < 12


def test_images_in_s3_by_the_options_of_the_command(
    alone: dict[str, str], s3: S3Server, tmp_path: Path
) -> None:
    """The environment names no server, neither here nor in the cluster; the record keeps its address."""
    s3.bucket("chips")
    with tarfile.open(s3.root / "chips" / "chips.tar", "w") as tar:
        for name in ("20_0_0_1.jpg", "30_1_0_2.jpg"):
            data = jpeg(np.full((50, 50, 3), int(name[:2]), np.uint8))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    s3.put("s3://chips/more/40_0_0_3.jpg", jpeg(quadrants(60, 60)))
    output = tmp_path / "out"
    run(
        alone, output, "--source", "utkface", "--output", str(output),
        *("--images", "s3://chips/chips.tar", "s3://chips/more"),
        *("--s3.endpoint", s3.endpoint, "--s3.region", "us-east-1"),
    )  # fmt: skip
    faces = Prepared(output).all_faces
    assert sorted(zip(faces["age"], faces["gender"], strict=True)) == [
        (20, "male"), (30, "female"), (40, "male"),
    ]  # fmt: skip
    record = read(folder(output))
    assert record.job == PREPARE
    assert record.storage == s3.options


@pytest.fixture
def inputs(tmp_path: Path, made: MadeImdb) -> Path:
    """A folder of good and bad inputs, by the names that the tests below use."""
    shutil.copy(made.metadata, tmp_path / "imdb.mat")
    savemat(tmp_path / "other.mat", {"faces": np.zeros(3)})
    savemat(tmp_path / "poor.mat", {"wiki": {"dob": np.zeros(3)}})
    (tmp_path / "text.mat").write_text("no metadata")
    pd.DataFrame({"path": ["a.jpg"], "age": [1]}).to_csv(tmp_path / "faces.csv", index=False)
    shutil.copy(made.tar, tmp_path / "images.tar")
    (tmp_path / "images.tar.gz").write_bytes(b"")
    (tmp_path / "text.tar").write_text("no tar")
    with tarfile.open(tmp_path / "others.tar", "w") as tar:
        info = tarfile.TarInfo("folder/other.jpg")
        tar.addfile(info, io.BytesIO(b""))
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken" / "faces").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("imdb-wiki --images images.tar", "--source imdb-wiki needs --metadata"),
        ("table --images images.tar", "--source table needs --table"),
        ("utkface --metadata imdb.mat --images images.tar", "--metadata is for --source imdb-wiki"),
        ("imdb-wiki --metadata imdb.mat", "--images needs at least one"),
        ("utkface --metadata-only", "--images needs at least one"),
        ("utkface --images images.tar --size 0", "--size must be at least 1, not 0"),
        ("utkface --images images.tar --shares 1 1 0", "add up to 1, not (1.0, 1.0, 0.0)"),
        ("cifar --images images.tar", "--source cannot be 'cifar'"),
        ("imdb-wiki --metadata no.mat --images images.tar", "cannot read 'no.mat': No such file"),
        ("imdb-wiki --metadata other.mat --images images.tar", "other.mat holds faces, not the"),
        ("imdb-wiki --metadata poor.mat --images images.tar", "lacks photo_taken, full_path"),
        ("imdb-wiki --metadata text.mat --images images.tar", "text.mat cannot be read as"),
        ("imdb-wiki --metadata imdb.mat --images no.tar", "cannot read 'no.tar': No such file"),
        ("imdb-wiki --metadata imdb.mat --images no", "no such folder or file: 'no'"),
        ("imdb-wiki --metadata imdb.mat --images images.tar.gz", "compressed"),
        ("imdb-wiki --metadata imdb.mat --images text.tar", "text.tar: the tar cannot be read"),
        ("imdb-wiki --metadata imdb.mat --images empty", "no image in 'empty'"),
        (
            "imdb-wiki --metadata imdb.mat --images others.tar",
            "names none of the images: the first image is called 'folder/other.jpg', the first in "
            "the metadata '00/nm0000000_rm0_",
        ),
        ("table --table faces.csv --images images.tar", "faces.csv has no column gender; it has"),
        (
            "imdb-wiki --metadata imdb.mat --images images.tar --output taken",
            "holds faces but no run.json",
        ),
    ],
)
def test_errors_of_one_line(
    inputs: Path, options: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)
    arguments = ["--source", *options.split()]
    with pytest.raises(UserError) as error:
        main([*arguments, *([] if "--output" in arguments else ["--output", "out"])])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (inputs / "out").exists()


def test_refuses_before_ray_is_imported() -> None:
    code = (
        "import sys, jobs.prepare as job\n"
        "try: job.main(['--source', 'table', '--output', 'x', '--table', 'no', '--images', 'y'])\n"
        "except job.UserError: print('ray' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"


def metadata_only(metadata: Path, output: Path) -> dict[str, int]:
    assert (
        main(
            [
                *("--source", "imdb-wiki", "--metadata", str(metadata), "--metadata-only"),
                *("--output", str(output)),
            ]
        )
        == 0
    )
    summary = json.loads((output / "summary.json").read_text())
    kept = pq.read_table(output / "kept")
    dropped = pq.read_table(output / "dropped")
    assert len(kept) == summary["kept"]
    assert Counter(dropped["rule"].to_pylist()) == Counter(summary["dropped"]) + Counter()
    assert len(kept) + len(dropped) == summary["rows"]
    return {KEPT: len(kept), **Counter(dropped["rule"].to_pylist())}


def test_metadata_only(made: MadeImdb, tmp_path: Path) -> None:
    counts = metadata_only(made.metadata, tmp_path / "out")
    assert counts["impossible_age"] == made.counts["impossible_age"]
    of_images = (
        "missing_image",
        "unreadable_image",
        "too_small",
        "duplicate",
        "duplicate_conflict",
    )
    assert counts[KEPT] == made.counts[KEPT] + sum(made.counts[rule] for rule in of_images)


@pytest.mark.data
def test_published_list_of_wiki(shared_data: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    counts = metadata_only(shared_data / "imdb_wiki" / "wiki.mat", tmp_path / "out")
    assert time.monotonic() - started < 20
    assert counts == {
        KEPT: 38_138,
        "no_face": 18_016,
        "low_face_score": 1_319,
        "second_face": 4_070,
        "unknown_gender": 736,
        "impossible_age": 49,
    }
    assert sum(counts.values()) == 62_328


def finished_shards(output: Path) -> dict[str, int]:
    """The intermediate shards that are written, and their times."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "ingested").glob("*.parquet")}


@pytest.mark.data
def test_utkface_stopped_in_between(
    alone: dict[str, str], shared_data: Path, tmp_path: Path
) -> None:
    tars, output = utkface_tars(shared_data), tmp_path / "out"
    options = ["--source", "utkface", "--images", *map(str, tars), "--output", str(output)]
    with Job(alone, tmp_path / "stopped.log", PREPARE, *options) as job:
        wait_until(lambda: finished_shards(output), 120)
        job.process.send_signal(signal.SIGTERM)
        assert job.finish() == 130
        assert "the same command goes on" in job.output
    assert not (output / "faces").exists()
    ready = finished_shards(output)
    with Job(alone, tmp_path / "again.log", PREPARE, *options) as job:
        wait_until(lambda: len(finished_shards(output)) > len(ready), 120)
        assert ready.items() <= finished_shards(output).items()
        assert job.finish() == 0, job.output

    prepared = Prepared(output)
    chips = read_all(tars)
    names = list(chips)
    prepared.check(19_350)
    assert prepared.summary["kept"] == 18_780
    assert Counter(prepared.summary["dropped"]) + Counter() == {
        "impossible_age": 19,
        "duplicate": 189,
        "duplicate_conflict": 362,
    }
    # Looked for by hash, in the bytes as they are stored: the chips are small enough to stay.
    hashes = [
        {hashlib.sha256(image).digest() for image in table["image"].to_pylist()}
        for table in prepared.faces.values()
    ]
    assert sum(map(len, hashes)) == len(set().union(*hashes)) == 18_780
    faces = prepared.all_faces
    assert faces["image"].to_list() == [chips[names[row]] for row in faces.index]
    without_race = [row for row, name in enumerate(names) if parse_name(name).race is None]
    assert len(without_race) == 3
    assert faces.loc[without_race, "group"].isna().all()
    assert faces["group"].isna().sum() == 3


@pytest.mark.data
def test_5000_rows_over_real_chips(
    alone: dict[str, str], shared_data: Path, tmp_path: Path
) -> None:
    chips = list(read_all(utkface_tars(shared_data)[:1]).values())
    made = make_imdb(tmp_path, chips, 5000 // ROUND)
    run(alone, tmp_path / "out", *imdb_options(made, tmp_path / "out"))
    prepared = Prepared(tmp_path / "out")
    prepared.check(5000)
    assert [prepared.rules[row] for row in range(5000)] == made.rules
