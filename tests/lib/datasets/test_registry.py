from pathlib import Path

import pytest

from lib.datasets.registry import source_of, terms_of
from lib.output.run_record import RunRecord, claim
from lib.storage.folder import folder


@pytest.mark.parametrize(
    ("source", "name", "terms"),
    [
        ("utkface", "UTKFace", "non-commercial research"),
        ("imdb-wiki", "IMDB-WIKI", "academic research"),
        ("table", "the user's own", "pictures in the table"),
        ("other", "unknown", "unknown"),
    ],
)
def test_terms_follow_the_data(source: str, name: str, terms: str, tmp_path: Path) -> None:
    claim(tmp_path, RunRecord("jobs.prepare", {"source": source}))
    assert name in source_of(folder(tmp_path / "faces"))
    assert terms in terms_of(folder(tmp_path / "faces"))


@pytest.mark.parametrize("text", [None, "no JSON", "[]"])
def test_faces_of_elsewhere_have_unknown_terms(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert "unknown" in source_of(folder(tmp_path / "faces"))
    assert "unknown" in terms_of(folder(tmp_path / "faces"))
