"""The files of `cluster/`, and the versions that they must agree on."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
RAY_JOBS = ("ray_job.yaml", "cluster/kuberay/train.yaml")
LAUNCHERS = ("cluster/aws.yaml", "cluster/gcp.yaml")
IMAGE = "registry.example.com/archive-labels"


def load(name: str) -> dict[str, Any]:
    """A YAML file of the project."""
    return yaml.safe_load((PROJECT / name).read_text("utf-8"))


def pinned(package: str) -> str:
    """The version of a package in requirements.txt."""
    text = (PROJECT / "requirements.txt").read_text("utf-8")
    match = re.search(rf"^{package}(?:\[[a-z,]+\])?==(\S+)$", text, re.MULTILINE)
    assert match, package
    return match[1]


def tag(variant: str) -> str:
    """The image of a variant, as all files must call it."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    return f"{IMAGE}:{project['version']}-ray{pinned('ray')}-{variant}"
