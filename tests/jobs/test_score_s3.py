"""The main job on object storage: real server, real cluster, and what goes wrong between them."""

import io
import tarfile
import time
from collections import Counter
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector

from lib.output.run_lock import RunLock
from lib.storage.folder import Folder, folder
from lib.storage.uris import bucket_and_key
from tests.nasty import jpeg
from tests.ray_head import Job, RayHead, run_job, wait_until
from tests.s3_server import ACCESS_KEY, SECRET_KEY, Fault, Proxy, S3Server

SCORE = "jobs.score"
IMAGES = 160


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Name → a picture; no two alike."""
    rng = np.random.default_rng(4)
    pixels = [
        rng.integers(0, 256, (6, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(IMAGES)
    ]
    return {f"{n % 4}/{n:03}.jpg": jpeg(pixel) for n, pixel in enumerate(pixels)}


@pytest.fixture(scope="module")
def archive(
    s3: S3Server, pictures: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same pictures as objects, as two tars and as Parquet on the server, and in a local folder."""
    local = tmp_path_factory.mktemp("local")
    for name, data in pictures.items():
        for root in (s3.bucket("objects"), local):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(data)
    tars = s3.bucket("tars")
    names = list(pictures)
    for shard in range(2):
        with tarfile.open(tars / f"shard-{shard}.tar", "w") as tar:
            for name in names[shard::2]:
                info = tarfile.TarInfo(name)
                info.size = len(pictures[name])
                tar.addfile(info, io.BytesIO(pictures[name]))
    rows = {
        "image": [{"bytes": data, "path": name} for name, data in pictures.items()],
        "person": [f"person {n}" for n in range(IMAGES)],
    }
    pq.write_table(pa.table(rows), s3.bucket("tables") / "train.parquet", row_group_size=50)
    s3.bucket("out")
    return local


POOL = ("--faces.actors", 1, "--faces.cpus", 1)
"""What makes a job ask for a cluster."""


def options(place: Proxy | S3Server, images: str, output: object, model: Path) -> list[object]:
    return [
        *(SCORE, "--images", *images.split(), "--output", output, "--model", model),
        *("--detector", "none", "--s3.endpoint", place.endpoint, "--s3.region", "us-east-1"),
    ]


def out(s3: S3Server, tmp_path: Path) -> Folder:
    return folder(f"s3://out/{tmp_path.name}", s3.options)


def labels(output: Folder) -> pd.DataFrame:
    parts = [(output / "labels").read_table(name) for name in (output / "labels").files()]
    frame = pa.concat_tables(parts).to_pandas().sort_values("id").reset_index(drop=True)
    assert frame["id"].is_unique
    frame["name"] = frame["uri"].str.extract(r"(\d/\d{3}\.jpg)$")
    assert frame["name"].notna().all()
    return frame


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same labels for all images that both could read."""
    once = expected.drop_duplicates("name")
    both = found[found["status"] == "ok"].merge(once, on="name", suffixes=("", "_expected"))
    assert len(both) == (found["status"] == "ok").sum()
    np.testing.assert_allclose(both["age"], both["age_expected"], atol=1e-3)
    assert both["gender"].tolist() == both["gender_expected"].tolist()


@pytest.fixture(scope="module")
def undisturbed(
    head: RayHead,
    s3: S3Server,
    archive: Path,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> pd.DataFrame:
    """All sources in one run, on S3."""
    folder_ = tmp_path_factory.mktemp("undisturbed")
    output = out(s3, folder_)
    images = f"s3://objects {archive} s3://tars s3://tables"
    status, text = run_job(
        head.environment,
        folder_ / "log",
        *options(s3, images, output, model),
        *POOL,
        "--carry",
        "person",
    )
    assert status == 0, text
    found = labels(output)
    # Small files have become one, and nothing is left of the run but its result.
    assert len((output / "labels").files()) == 1
    names = {info.base_name for info in output.filesystem.get_file_info(FileSelector(output.path))}
    assert names == {"labels", "manifest", "run.json", "summary.json"}
    assert_no_secrets(folder_ / "log", s3, output, head)
    return found


def assert_no_secrets(log: Path, s3: S3Server, output: Folder, head: RayHead) -> None:
    """Neither in what was printed, nor in what was written, nor in any log of Ray."""
    bucket, key = bucket_and_key(output.uri)
    written = [
        *(s3.root / bucket / key).rglob("*"),
        *Path(head.environment["RAY_TMPDIR"]).rglob("*"),
    ]
    for file in [log, *written]:
        if file.is_file() and not file.is_socket():
            data = file.read_bytes()
            assert SECRET_KEY.encode() not in data, file
            if file.suffix != ".log" or "session" not in str(file):
                assert ACCESS_KEY.encode() not in data, file


def test_all_sources_say_the_same(undisturbed: pd.DataFrame, archive: Path) -> None:
    found = undisturbed
    assert found["id"].tolist() == list(range(4 * IMAGES))
    assert found["status"].tolist() == ["ok"] * 4 * IMAGES
    one = found[found["uri"].str.startswith(str(archive))]
    assert one["age"].nunique() == IMAGES
    assert found["name"].nunique() == IMAGES
    for _, same in found.groupby("name"):
        assert len(same) == 4
        assert np.ptp(same["age"]) < 1e-3
        assert same["gender"].nunique() == 1
    # Only the table has the column that is carried through.
    table = found[found["uri"].str.startswith("s3://tables/train.parquet#")]
    assert table["person"].tolist() == [f"person {n}" for n in range(IMAGES)]
    assert found["person"].notna().sum() == IMAGES


def test_faults_then_retry_then_update(
    head: RayHead, alone: dict[str, str], proxy: Proxy, s3: S3Server, archive: Path, model: Path,
    undisturbed: pd.DataFrame, tmp_path: Path,
) -> None:  # fmt: skip
    """Throttled, reset, truncated, stalled, forbidden, gone, and the server down for 20 seconds."""
    bucket = s3.bucket("faulty")
    for name in undisturbed["name"].unique():
        (bucket / name).parent.mkdir(exist_ok=True)
        (bucket / name).write_bytes((archive / name).read_bytes())
    always: dict[str, Fault] = {"faulty/0/000.jpg": "403", "faulty/1/001.jpg": "403"}
    always |= {"faulty/2/002.jpg": "404"}
    once: dict[str, Fault] = {"faulty/3/003.jpg": "stall"}
    once |= {f"faulty/{n % 4}/{n:03}.jpg": "reset" for n in range(20, 24)}
    once |= {f"faulty/{n % 4}/{n:03}.jpg": "truncate" for n in range(24, 28)}
    once |= {"tars/shard-0.tar": "reset", "tars/shard-1.tar": "truncate"}
    once |= {"tables/train.parquet": "reset"}
    requests, down = Counter[str](), Event()

    def rule(method: str, key: str, times: int) -> Fault | None:
        if method == "GET" and key in always:
            return always[key]
        if method == "GET" and key in once and times == 0:
            return once[key]
        # A server that was down for long leaves hardly a try that may be throttled.
        if down.is_set():
            return None
        requests["all"] += 1
        return "503" if requests["all"] % 10 == 0 else None

    proxy.rule = rule
    output, log = out(s3, tmp_path), tmp_path / "log"
    sources = "s3://faulty s3://tars s3://tables"
    command = [*options(proxy, sources, output, model), "--fetch-timeout", 5]
    with Job(head.environment, log, *command, *POOL) as job:
        wait_until(lambda: proxy.asked["GET", "faulty/0/040.jpg"], 120)
        down.set()
        s3.kill()
        Timer(20, s3.start).start()
        assert job.finish() == 0, job.output
    assert {"503", "403", "404", "reset", "truncate", "stall"} <= proxy.faults.keys()
    found = labels(output)
    assert len(found) == 3 * IMAGES
    single = found["uri"].str.startswith("s3://faulty/")
    assert (found["status"][~single] == "ok").all()
    statuses = dict(zip(found["name"][single], found["status"][single], strict=True))
    assert len(statuses) == IMAGES
    bad = {name.removeprefix("faulty/"): fault for name, fault in always.items()}
    said = {"403": "access_denied", "404": "not_found"}
    assert statuses == {n: said[bad[n]] if n in bad else "ok" for n in statuses}
    assert_same(found, undisturbed)
    assert_no_secrets(log, s3, output, head)

    # Only what failed is done again.
    proxy.reset()
    status, text = run_job(alone, log, *command, "--retry", "access_denied,not_found")
    assert status == 0, text
    assert "3 images are tried again" in text
    assert {
        key for method, key in proxy.asked if key.startswith("faulty/") and key.endswith("jpg")
    } == {*always}
    again = labels(output)
    assert len(again) == 3 * IMAGES
    assert (again["status"] == "ok").all()
    assert_same(again, undisturbed)

    # One is new, one has changed, one has gone.
    s3.put("s3://faulty/9/999.jpg", (archive / "0/000.jpg").read_bytes())
    s3.put("s3://faulty/0/004.jpg", (archive / "0/008.jpg").read_bytes())
    proxy.asked.clear()
    s3.open("s3://faulty/")[0].delete(["1/005.jpg"])
    status, text = run_job(alone, log, *command, "--update", "--prune")
    assert status == 0, text
    assert "1 new, 1 changed, 1 vanished, dropped" in text
    assert {key for method, key in proxy.asked if key.endswith("jpg")} == {
        "faulty/9/999.jpg", "faulty/0/004.jpg"
    }  # fmt: skip
    everything = labels(output)
    assert len(everything) == 3 * IMAGES
    single = everything["uri"].str.startswith("s3://faulty/")
    updated = everything[single].set_index("name")["age"]
    assert "1/005.jpg" not in updated
    assert updated["0/004.jpg"] == pytest.approx(updated["0/008.jpg"], abs=1e-3)
    started = time.monotonic()
    status, text = run_job(alone, log, *command, "--update", "--prune")
    assert status == 0, text
    assert "0 new, 0 changed, 0 vanished" in text
    assert "nothing to do" in text
    assert time.monotonic() - started < 20


def test_killed_wherever_it_hurts(
    head: RayHead, proxy: Proxy, s3: S3Server, archive: Path, model: Path,
    undisturbed: pd.DataFrame, tmp_path: Path,
) -> None:  # fmt: skip
    """SIGKILL while it lists, fetches, writes labels, compacts; each start goes on."""
    output, log = out(s3, tmp_path), tmp_path / "log"
    command = [*options(proxy, "s3://objects", output, model), *POOL]
    place = output.path

    def killed_at(method: str, part: str, times: int = 0) -> None:
        """Start, let the request hang that touches `part` for the n-th time, and kill."""
        proxy.reset()
        seen = Counter[str]()

        def rule(asked: str, key: str, _: int) -> Fault | None:
            if asked == method and part in key:
                seen[part] += 1
                return "hang" if seen[part] == times + 1 else None
            return None

        proxy.rule = rule
        with Job(head.environment, log, *command) as job:
            wait_until(lambda: proxy.hanging.is_set() or job.process.poll() is not None, 120)
            assert job.process.poll() is None, job.output + head.driver_log()
            commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
            ours = [words for words in commands if words and not words[0].endswith("rclone")]
            assert len(ours) > 3
            assert not [words for words in ours if SECRET_KEY in " ".join(words)]
            job.process.kill()
            job.process.wait()
        wait_until(lambda: not head.workers(), 60)
        proxy.reset()

    killed_at("PUT", f"{place}/manifest/_listing.json")
    killed_at("GET", "objects/1/", 20)
    killed_at("PUT", f"{place}/labels/", 2)
    killed_at("PUT", f"{place}/compaction/plan.json")
    assert labels(output)["id"].tolist() == list(range(IMAGES))
    killed_at("DELETE", f"{place}/labels/", 1)  # of three files at least, by the third PUT
    status, text = run_job(head.environment, log, *command)
    assert status == 0, text
    found = labels(output)
    assert found["id"].tolist() == list(range(IMAGES))
    assert (found["status"] == "ok").all()
    assert_same(found, undisturbed)
    assert len((output / "labels").files()) == 1
    assert not output.holds("compaction")


def test_the_second_run_refuses(
    head: RayHead, s3: S3Server, archive: Path, model: Path, tmp_path: Path
) -> None:
    output = out(s3, tmp_path)
    with RunLock(output):
        status, text = run_job(
            head.environment, tmp_path / "log", *options(s3, "s3://objects", output, model), *POOL
        )
    assert status == 2
    assert text.startswith("error: another run (process ")
    assert text.count("\n") == 1
    assert not output.holds("run.json")
