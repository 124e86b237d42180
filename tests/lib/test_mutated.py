"""Damaged files: a picture or an image error, in bounded time and memory, and no worse than OpenCV's."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lib.images import ImageError, Limits, decode
from tests.mutated import COUNT, Mutated, mutated
from tests.ray_head import PROJECT

MAX_PIXELS = 10_000_000
MIB = 1 << 20
SECONDS = 100
LEVELS = 2
"""Mean difference above which two decoders disagree."""
CHILD = """
import json, re, sys, time
from pathlib import Path

from lib.images import ImageError, Limits, decode
from tests.mutated import mutated

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

files = list(mutated())
decode(files[0].original.data, Limits())
before = peak()
for file in files:
    for at_least in (None, 8):
        started = time.monotonic()
        try:
            status = "read" if decode(file.data, Limits(int(sys.argv[1])), at_least) else ""
        except ImageError as error:
            status = error.status
            assert str(error) and "\\n" not in str(error)
        print(json.dumps([file.name, status, time.monotonic() - started, peak() - before]), flush=True)
"""


def test_each_is_a_picture_or_an_image_error() -> None:
    """In a process of its own: a crash of a decoder would end it."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(MAX_PIXELS)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    lines = child.stdout.splitlines()
    assert child.returncode == 0, f"after {lines[-1:]}: {child.stderr[-2000:]}"
    results = [json.loads(line) for line in lines]
    assert len(results) == 2 * COUNT
    statuses = Counter(status for _, status, _, _ in results)
    assert statuses.keys() <= {"read", "decode_error", "too_large", "unsupported"}
    assert statuses["read"] >= 2 * COUNT // 5  # damage that costs nothing is part of it
    assert max(seconds for _, _, seconds, _ in results) < 10
    # Four bytes a pixel while it is decoded, three of the result, and what is kept for later.
    assert max(grown for *_, grown in results) < 10 * MAX_PIXELS + 64 * MIB


def by_opencv(data: bytes) -> NDArray[np.uint8] | None:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    return None if pixels is None else pixels.astype(np.uint8)


def disagreements() -> Iterator[tuple[Mutated, NDArray[np.uint8], NDArray[np.uint8]]]:
    """The files that both decoders read differently, with both pictures."""
    for file in mutated():
        try:
            ours = decode(file.data, Limits(MAX_PIXELS)).pixels
        except ImageError:
            continue
        theirs = by_opencv(file.data)
        if theirs is None:
            continue
        if theirs.shape != ours.shape or np.abs(ours.astype(int) - theirs).mean() > LEVELS:
            yield file, ours, theirs


def distance(pixels: NDArray[np.uint8], right: NDArray[np.uint8]) -> float:
    """Mean difference from the pixels that the file was made from; infinite for another size."""
    return (
        float(np.abs(pixels.astype(int) - right).mean()) if pixels.shape == right.shape else np.inf
    )


@pytest.mark.filterwarnings("ignore:::PIL")
def test_where_decoders_disagree_the_right_one_is_taken() -> None:
    """What is right is known: the pixels from which the file was made before it was damaged.

    The disagreements are those of sound files, too: OpenCV drops transparency, rounds colours of 5 bits
    otherwise, and takes TIFFs of 16 bits for darker than they are.
    """
    found = list(disagreements())
    assert found
    for file, ours, theirs in found:
        right = file.original.expected
        assert distance(ours, right) <= distance(theirs, right), file.name
