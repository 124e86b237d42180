"""What the README says: what labels and reads labels runs, on small data; of the other commands, whose
whole runs have tests of their own, all options are checked; and what it names is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lib.demo import EXPECTED, make_demo
from tests.ray_head import PROJECT, RayHead
from tests.stand_in import LABELS, REAL

README = (PROJECT / "README.md").read_text("utf-8")
PROGRAMS = ("python", "make", "ray")


def blocks() -> list[str]:
    """The blocks of commands; the other kind shows a folder."""
    found = re.findall(r"^```(?:sh)?\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for block in found if not block.startswith("OUTPUT/")]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins of the programs, and data for the commands."""
    folder = tmp_path_factory.mktemp("readme")
    programs = folder / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.stand_in {name} "$@"\n')
        program.chmod(0o755)
    make_demo(str(folder / "data" / "photographs"))
    (folder / "data" / "utkface").mkdir()
    for name in ("utkface/a.tar", "imdb.mat", "imdb_crop.tar"):
        (folder / "data" / name).write_bytes(b"")
    return folder


def in_shell(folder: Path, text: str) -> str:
    """The same commands, in the folder's data instead of /data and without an environment."""
    text = text.replace(". .venv/bin/activate", ":").replace(".venv/bin/python", "python")
    return text.replace("/data/", f"{folder}/data/").replace("out/demo", f"{folder}/data/labels")


@pytest.mark.timeout(600)
def test_every_block_of_commands_works(head: RayHead, shell: Path) -> None:
    commands = blocks()
    assert len(commands) >= 5
    # What asks for labels is put behind what makes them, wherever the README has it.
    commands.sort(key=lambda block: "read_parquet" in block)
    script = "set -euo pipefail\n" + in_shell(shell, "\n".join(commands))
    environment = {
        **head.environment,
        REAL: head.environment["PATH"],
        LABELS: f"{shell}/data/labels",
        "PATH": f"{shell / 'programs'}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=PROJECT, env=environment, timeout=500,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    labels = pq.read_table(shell / "data" / "labels" / "labels")
    assert len(labels) == len(EXPECTED)
    for job in set(re.findall(r"python -m (jobs\.\w+)", "".join(commands))):
        assert f"checked: {job}" in done.stdout or job in ("jobs.status", "jobs.report")
    assert "-m jobs.score --images" in done.stdout  # the recipe of `make score`
    assert str(labels["status"].value_counts().to_pylist()[0]["counts"]) in done.stdout
    if "jobs.report" in README:
        assert (shell / "data" / "report.html").stat().st_size > 100_000
        assert len(list((shell / "data" / "report-pictures").iterdir())) == 7
        assert f"{len(EXPECTED)} of {len(EXPECTED)} images (100%)" in done.stdout


@pytest.mark.parametrize("command", ["python -m jobs.train --dat x", "python setup.py", "ray up"])
def test_a_wrong_command_would_be_noticed(command: str, shell: Path) -> None:
    path = f"{shell / 'programs'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, REAL: os.environ["PATH"], LABELS: "/no/labels"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=PROJECT, env=environment, capture_output=True, check=False
    )
    assert done.returncode != 0


def test_what_it_names_is_there() -> None:
    names = set(re.findall(r"`((?:benchmarks|jobs|models|cluster|lib|tests)/[\w/.-]+)`", README))
    names |= set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
    names |= set(re.findall(r"`([A-Z]+\.(?:md|cff)|LICENSE)`", README))
    assert len(names) >= 5
    assert [name for name in sorted(names) if not (PROJECT / name).exists()] == []
