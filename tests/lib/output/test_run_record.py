from pathlib import Path

import pytest

from lib.common.errors import UserError
from lib.output.run_record import FILE, OWNED, claim

FINGERPRINT = {"model": "a@1", "limit": None, "images": ["/x"], "tasks": ("age", "gender")}


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "output"
    claim(output, FINGERPRINT, {"fact": 1})
    record = (output / FILE).read_text()
    claim(output, dict(FINGERPRINT), {"fact": 2})
    assert (output / FILE).read_text() == record


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"limit": 5}, "limit was None, now 5"),
        ({"model": "b@2", "limit": 5}, "model was 'a@1', now 'b@2'; limit was None, now 5"),
        ({"new": True}, "new was None, now True"),
    ],
)
def test_another_run_is_refused(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    claim(tmp_path, FINGERPRINT, {})
    with pytest.raises(UserError) as refusal:
        claim(tmp_path, {**FINGERPRINT, **change}, {})
    assert complaint in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("folder", OWNED)
def test_results_of_unknown_origin_are_refused(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match="what made them is unknown"):
        claim(tmp_path, FINGERPRINT, {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}'])
def test_a_damaged_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        claim(tmp_path, FINGERPRINT, {})


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --output"):
        claim(tmp_path / "file" / "output", FINGERPRINT, {})
