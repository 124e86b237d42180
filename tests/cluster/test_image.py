"""The image's recipe, and what is sent along with a job."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

from tests.cluster.files import PROJECT, pinned

DOCKERFILE = PROJECT / "cluster" / "Dockerfile"


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "hadolint"
    return subprocess.run(
        [program, "--no-color", "-"], input=text, capture_output=True, text=True, check=False
    )


def test_lint() -> None:
    result = hadolint(DOCKERFILE.read_text("utf-8"))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("FROM python:3.11.14-slim-bookworm", "FROM python"),
        ("pip install --no-cache-dir", "pip install"),
        ("USER 1000", "USER root"),
    ],
)
def test_the_linter_finds_faults(good: str, bad: str) -> None:
    text = DOCKERFILE.read_text("utf-8")
    assert good in text
    assert hadolint(text.replace(good, bad)).returncode == 1


def test_both_variants_on_one_pinned_base() -> None:
    text = DOCKERFILE.read_text("utf-8")
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    base, cpu = stages[0]
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", base)
    assert (cpu, stages[1:]) == ("cpu", [("cpu", "gpu"), ("${VARIANT}", "")])
    # The packages that are pinned were pinned for this Python.
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    assert base.startswith(
        f"python:{wanted['requires-python'].removeprefix('>=').partition(',')[0]}."
    )
    # The line for GPUs is made from that of requirements.txt.
    made = subprocess.run(
        ["sed", "--quiet", "s/^tensorflow==/tensorflow[and-cuda]==/p", "requirements.txt"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout == f"tensorflow[and-cuda]=={pinned('tensorflow')}\n"


def test_what_is_copied_is_sent_and_exists() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
        for source in line.split()[:-1]
    }
    lines = (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert copied == sent
    assert all((PROJECT / source).exists() for source in copied)
    assert "*" in lines


def test_what_a_job_takes_along() -> None:
    """Code and models, by Ray's own reading of the ignore files; no tests, no environment."""
    excluded = get_excludes_from_ignore_files(PROJECT, include_gitignore=True)

    def is_sent(name: str) -> bool:
        return not any(exclude(PROJECT / name) for exclude in excluded)

    assert all(
        is_sent(n) for n in ("jobs/score.py", "lib/archive/archive.py", "models/default/card.json")
    )
    left = ("tests/conftest.py", ".git", "out/labels", ".venv", "lib/__pycache__/a.pyc")
    assert not any(is_sent(name) for name in left)


def test_ignore_files_name_what_exists() -> None:
    """No pattern is a leftover."""
    names = [path.name for path in PROJECT.iterdir()]
    for line in (PROJECT / ".rayignore").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            assert fnmatch.filter(names, line), line
