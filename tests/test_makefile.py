"""The choice of Python, the list of targets and the demonstration's output, without an installation."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_head import PROJECT

MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")
FITS = "Python 3.11, 3.12 or 3.13 with venv is needed"


def make(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("IMAGES", "OUTPUT", "REPORT", "PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    if path is not None:
        environment["PATH"] = str(path)
    return subprocess.run(
        [str(MAKE), *arguments],
        cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def python(folder: Path, name: str, version: str, missing: str = "") -> Path:
    """Make up an interpreter: the real one with another version, perhaps without a module."""
    major, minor = version.split(".")
    patch = f"import sys; sys.version_info = ({major}, {minor}, 0, 'final', 0); "
    if missing:
        patch += f"sys.modules['{missing}'] = None; "
    script = folder / name
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{patch}exec(sys.argv[1])" "$2"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ({"python3": "3.12"}, "python3"),
        ({"python3": "3.14", "python3.11": "3.11"}, "python3.11"),
        ({"python3": "3.11", "python3.11": "3.11", "python3.12": "3.12"}, "python3.12"),
        ({"python3.13": "3.13", "python3.12": "3.12", "python3.11": "3.11"}, "python3.13"),
        ({"python3": "3.14", "python3.13": "3.14", "python3.12": "3.12"}, "python3.12"),
    ],
)
def test_the_first_python_that_fits(installed: dict[str, str], chosen: str, tmp_path: Path) -> None:
    for name, version in installed.items():
        python(tmp_path, name, version)
    done = make("python", path=tmp_path)
    assert done.stdout == f"{chosen}\n"
    assert done.returncode == 0


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv_is_passed_over(module: str, tmp_path: Path) -> None:
    python(tmp_path, "python3.13", "3.13", missing=module)
    python(tmp_path, "python3.11", "3.11")
    assert make("python", path=tmp_path).stdout == "python3.11\n"


@pytest.mark.parametrize("installed", [{}, {"python3": "3.14"}, {"python3": "3.10"}])
def test_without_a_python_that_fits_one_line_says_what_to_do(
    installed: dict[str, str], tmp_path: Path
) -> None:
    for name, version in installed.items():
        python(tmp_path, name, version)
    done = make("python", path=tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("make"))
    assert line.startswith(f"error: {FITS}; apt install python3.13-venv")


def test_an_explicit_python_is_checked_too(tmp_path: Path) -> None:
    python(tmp_path, "python3", "3.12")
    folder = tmp_path / "with space"
    folder.mkdir()
    good, bad = python(folder, "good", "3.13"), python(folder, "bad", "3.14")
    assert make("python", f"PYTHON={good}", path=tmp_path).stdout == f"{good}\n"
    refused = make("python", f"PYTHON={bad}", path=tmp_path)
    assert refused.returncode != 0
    assert f"error: PYTHON={bad} does not fit: {FITS}" in refused.stderr


def test_make_alone_lists_the_targets() -> None:
    told = make()
    assert told.stdout == make("help").stdout
    listed = re.findall(r"^make (\w+)\t\S", told.stdout, re.M)
    assert listed == ["help", "python", "score", "test", "lint", "lock"]


@pytest.mark.parametrize(
    ("options", "images", "output", "removed"),
    [
        ([], "out/demo-images", "out/demo", "out/demo-images out/demo"),
        (["OUTPUT=/x/y"], "out/demo-images", "/x/y", "out/demo-images"),
        (["IMAGES=/a", "OUTPUT=/x/y"], "/a", "/x/y", None),
        (["IMAGES=/a"], "/a", "out/labels", None),
        (["IMAGES=/a", "OUTPUT=s3://b/c"], "/a", "s3://b/c", None),
    ],
)
def test_images_and_output_of_score(
    options: list[str], images: str, output: str, removed: str | None, tmp_path: Path
) -> None:
    """The recipe runs up to the job, which is made up here and prints its environment."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").write_text(
        '#!/bin/sh\nif [ "$2" = jobs.score ]; then shift 2; printf "%s\\n" "$@"; fi\n'
    )
    (bin_ / "python").chmod(0o755)
    for name in ("requirements.txt", "requirements-dev.txt", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "installed").touch()
    lines = make("-C", str(tmp_path), "score", *options).stdout.splitlines()
    place = lines.index("--images")
    assert lines[place : place + 4] == ["--images", images, "--output", output]
    rm = [line.removeprefix("rm -rf ").strip() for line in lines if line.startswith("rm ")]
    assert rm == ([] if removed is None else [removed])


@pytest.mark.parametrize("driver", ["", "/usr/bin/nvidia-smi"])
def test_cuda_is_installed_where_there_is_a_driver(driver: str, tmp_path: Path) -> None:
    """Pip is made up: it prints what it is to install."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    shutil.copy(PROJECT / "requirements.txt", tmp_path)
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").write_text('#!/bin/sh\nif [ "$2" = pip ]; then cat .venv/cuda.txt; fi\n')
    (bin_ / "python").chmod(0o755)
    for name in ("requirements-dev.txt", "constraints.txt", ".venv/installed"):
        (tmp_path / name).touch()
    first, second = (
        make("-C", str(tmp_path), "score", f"DRIVER={driver}").stdout for _ in range(2)
    )
    assert ("tensorflow[and-cuda]==" in first) == bool(driver)
    assert "[and-cuda]==2" not in second
