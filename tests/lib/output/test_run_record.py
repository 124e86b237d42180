from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lib.common.errors import UserError
from lib.output.run_record import FILE, OWNED, RunRecord, claim, read
from lib.storage.folder import folder as as_folder
from tests.s3_server import s3_options

FINGERPRINT = {"model": "a@1", "limit": None, "images": ["/x"], "tasks": ("age", "gender")}
STORAGE = s3_options("http://127.0.0.1:9000", "eu-central-1", profile="mine", requester_pays=True)


def record(fingerprint: Mapping[str, Any] = FINGERPRINT) -> RunRecord:
    return RunRecord("jobs.score", fingerprint, STORAGE, {"name": "a"})


def test_the_record_reads_back(tmp_path: Path) -> None:
    claim(tmp_path, record())
    expected = record({**FINGERPRINT, "tasks": ["age", "gender"]})
    assert read(as_folder(tmp_path)) == expected


def test_the_same_run_continues(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "output"
    claim(output, record())
    text = (output / FILE).read_text()
    claim(output, record(dict(FINGERPRINT)))
    assert (output / FILE).read_text() == text


def test_a_run_may_continue_with_other_storage_options(tmp_path: Path) -> None:
    claim(tmp_path, record())
    claim(tmp_path, RunRecord("jobs.score", FINGERPRINT, s3_options(anonymous=True), {"name": "a"}))
    assert read(as_folder(tmp_path)).storage == s3_options(anonymous=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"limit": 5}, "limit was None, now 5"),
        ({"model": "b@2", "limit": 5}, "model was 'a@1', now 'b@2'; limit was None, now 5"),
        ({"new": True}, "new was None, now True"),
    ],
)
def test_another_run_is_refused(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    claim(tmp_path, record())
    with pytest.raises(UserError) as refusal:
        claim(tmp_path, record({**FINGERPRINT, **change}))
    assert complaint in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def test_a_run_of_another_job_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, RunRecord("jobs.prepare", FINGERPRINT))
    with pytest.raises(UserError, match=r"is an output of jobs\.prepare; give another --output"):
        claim(tmp_path, record())


@pytest.mark.parametrize("folder", OWNED)
def test_results_of_unknown_origin_are_refused(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match="what made them is unknown"):
        claim(tmp_path, record())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}'])
def test_a_damaged_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        claim(tmp_path, record())


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --output"):
        claim(tmp_path / "file" / "output", record())
