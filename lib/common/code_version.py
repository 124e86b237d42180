"""The version of the running code."""

import hashlib
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = ("jobs", "lib")


def code_version() -> str:
    """The commit of the project, with `-dirty` if files differ from it; without git, a digest.

    Returns:
        `commit 1a2b3c4d5e6f` or `sources sha256 1a2b3c4d5e6f…`.
    """
    command = ("git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=12")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, as in Ray's copy for submitted jobs
        return f"sources sha256 {_digest()[:12]}"
    return f"commit {done.stdout.strip()}"


def _digest() -> str:
    digest = hashlib.sha256()
    for folder in SOURCES:
        for file in sorted((PROJECT / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(PROJECT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
