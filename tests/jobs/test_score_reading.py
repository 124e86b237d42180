"""How the main job reads an archive, without a cluster."""

from pathlib import Path

import pytest

from jobs.score import Options, reading_of
from lib.archive.archive import Archive
from lib.models.bundle import read_bundle
from lib.storage.folder import folder


@pytest.mark.parametrize("output", [".", "out"])
def test_the_output_may_lie_in_the_archive(tmp_path: Path, output: str) -> None:
    for name in ("a.jpg", f"{output}/report-pictures/00000001.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    options = Options((str(tmp_path),), str(tmp_path / output))
    found = Archive(
        options.images, reading=reading_of(options, options.storage, folder(options.output))
    )
    assert [entry.uri for entry in found] == [str(tmp_path / "a.jpg")]
    assert found.skipped == {"output of a run": 1}


@pytest.mark.parametrize("option", ["all_files", "mirror"])
def test_an_option_makes_another_run(option: str, model: Path) -> None:
    """Outputs of earlier versions go on: without the option there is nothing to compare."""
    bundle = read_bundle(model)
    usual = Options(("x",), "out").fingerprint(bundle)
    changed = Options(("x",), "out", **{option: True})  # type: ignore[arg-type]
    assert usual[option] is None
    assert changed.fingerprint(bundle) == {**usual, option: True}


def test_all_files_are_read() -> None:
    options = Options(("x",), "out", all_files=True)
    assert reading_of(options, options.storage, folder("out")).all_files
