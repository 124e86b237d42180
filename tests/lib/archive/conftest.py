"""Archives of files, on a local disk and in a bucket."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.archive.archive import Reading
from tests.s3_server import S3Server

Make = Callable[[dict[str, bytes]], tuple[str, Reading]]
"""The bytes of files by name → the folder that holds them, and how to read it."""


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(params=["local", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes an archive."""

    def local(files: dict[str, bytes]) -> tuple[str, Reading]:
        return str(write(tmp_path / "tree", files)), Reading()

    def s3(files: dict[str, bytes]) -> tuple[str, Reading]:
        server: S3Server = request.getfixturevalue("s3")
        bucket = f"archive-{uuid.uuid4().hex}"
        write(server.bucket(bucket) / "tree", files)
        return f"s3://{bucket}/tree", Reading(storage=server.options)

    return local if request.param == "local" else s3
