import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from jobs.status import main, recent_speed, report
from lib.archive.manifest import Manifest
from lib.common.errors import UserError
from lib.output.reader import FileCounts, Output
from lib.output.run_record import RunRecord, claim
from lib.storage.folder import folder as as_folder
from tests.made_labels import face, make_output, row, write_rows
from tests.nasty import jpeg, quadrants
from tests.ray_head import PROJECT, run_job
from tests.s3_server import S3Server

NOW = 1_800_000_000.0
MILLION = 1_000_000


def counts(written: float, ok: int, no_face: int = 0) -> FileCounts:
    return FileCounts(written, Counter({"ok": ok, "no_face": no_face}) + Counter())


def test_words() -> None:
    files = [counts(NOW - 600, 999), counts(NOW - 40, 1), counts(NOW - 20, 100, 20)]
    assert report(files, 2000, 6.0, NOW).splitlines() == [
        "1,120 of 2,000 images (56%) · 6.0 images/s · 2 min 27 s left",
        "  ok                    1,100  at least one face was found and labelled",
        "  no_face                  20  the image was read, and no face was found in it",
        "last write 2027-01-15 07:59:40 UTC, 20 s ago",
    ]
    assert report([], 5, None, NOW) == "0 of 5 images (0%) · ? left"


def test_the_speed_is_that_of_the_last_minute() -> None:
    files = [counts(NOW - 600, 999), counts(NOW - 40, 1), counts(NOW - 20, 100, 20)]
    assert recent_speed(files) == 6.0
    assert recent_speed(files[:1]) is None
    assert recent_speed([]) is None


def test_only_rows_of_whole_files_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in "abc":
        (images / f"{name}.jpg").write_bytes(jpeg(quadrants()))
    labels = {f"{name}.jpg": {"faces": [face()]} for name in "abc"}
    output = make_output(tmp_path / "out", images, labels, files=3)
    third = sorted((output / "labels").glob("*.parquet"))[-1]
    third.rename(third.with_name(f".{third.name}.tmp"))  # as a file that is being written
    assert main([str(output)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 of 3 images (67%)")
    assert re.search(r"last write .* UTC, \d+ s ago\n$", text)


def test_before_the_first_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim(tmp_path, RunRecord("jobs.score", {}))
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "the archive is being listed; no image has been labelled yet\n"
    )


@pytest.mark.parametrize("folder", ["/no/such", "."])
def test_what_is_no_labelling_is_refused(folder: str) -> None:
    with pytest.raises(UserError, match=r"no labelling in .*run\.json; give the folder"):
        main([folder])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    claim(tmp_path, RunRecord("jobs.score", {}))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "x.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UserError, match=r"cannot read '.*/labels/x\.parquet': .*"):
        Output(str(tmp_path)).counts()


def test_a_million_rows_are_quick(tmp_path: Path) -> None:
    """In files as small as those of jobs/score.py, of mixed statuses, so that a column is read."""
    rows = [row(n, f"/images/{n}.jpg", [face()] if n % 9 else []) for n in range(500)]
    claim(tmp_path, RunRecord("jobs.score", {}))
    write_rows(tmp_path, rows)
    manifest = Manifest(MILLION, bytes=1, skipped={}, digest="", parts=(), next_id=MILLION)
    manifest.declare(as_folder(tmp_path / "manifest"))
    (part,) = (tmp_path / "labels").iterdir()
    for number in range(1, MILLION // 500):
        shutil.copy(part, tmp_path / "labels" / f"{number}.parquet")
    started = time.monotonic()
    status, text = run_job(dict(os.environ), tmp_path / "log", "jobs.status", tmp_path)
    seconds = time.monotonic() - started
    assert status == 0, text
    assert text.startswith("1,000,000 of 1,000,000 images (100%)")
    # Two seconds on a machine of its own; the tests share theirs.
    assert seconds < 6


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, jobs.status; print({'ray', 'tensorflow', 'pandas', 'scipy'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_output_in_s3_by_the_options_of_the_command(
    s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.bucket("status")
    claim(as_folder("s3://status/out", s3.options), RunRecord("jobs.score", {}))
    options = ["--s3.endpoint", s3.endpoint, "--s3.region", "us-east-1"]
    assert main(["s3://status/out", *options]) == 0
    assert "the archive is being listed" in capsys.readouterr().out


@pytest.mark.parametrize("job", ["jobs.prepare", "jobs.train"])
def test_the_output_of_another_job_is_refused(job: str, tmp_path: Path) -> None:
    claim(tmp_path, RunRecord(job, {}))
    with pytest.raises(UserError, match=f"is no labelling but an output of {job}; give the folder"):
        main([str(tmp_path)])
