import shutil
import subprocess
from pathlib import Path

import pytest

from lib.common import code_version


def test_a_clone_says_its_commit() -> None:
    if not (code_version.PROJECT / ".git").exists():
        pytest.skip("these files are not a git clone")
    head = subprocess.run(
        ["git", "-C", code_version.PROJECT, "rev-parse", "HEAD"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert code_version.code_version().startswith(f"commit {head[:12]}")


def test_a_copy_says_a_digest_of_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(code_version.PROJECT / "lib", tmp_path / "lib")
    monkeypatch.setattr(code_version, "PROJECT", tmp_path)
    first = code_version.code_version()
    assert first.startswith("sources sha256 ")
    assert code_version.code_version() == first
    (tmp_path / "lib" / "more.py").write_text("")
    assert code_version.code_version() != first
