import io
from collections import Counter

import pytest

from lib.common.progress import Progress, duration, progress_line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7 * 3600 + 12 * 60, "7 h 12 min"),
        (2 * 86400 + 3 * 3600, "2 d 03 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("counts", "total", "rate", "line"),
    [
        ({}, 10, 0.0, "0 of 10 images (0%) · 0.0 images/s · ? left · -"),
        (
            {"ok": 1500, "no_face": 500},
            4000,
            100.0,
            "2,000 of 4,000 images (50%) · 100.0 images/s · 20 s left · ok 1,500 no_face 500",
        ),
        ({"ok": 4}, 4, 2.5, "4 of 4 images (100%) · 2.5 images/s · ok 4"),
    ],
)
def test_lines(counts: dict[str, int], total: int, rate: float, line: str) -> None:
    assert progress_line(Counter(counts), total, rate) == line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["log", "terminal"])
def test_the_last_line_tells_the_end(stream: io.StringIO) -> None:
    done = Counter({"ok": 1})
    with Progress(3, lambda: done, stream):
        done["ok"] = 3
    last = stream.getvalue().splitlines()[-1]
    assert "3 of 3 images (100%)" in last
    assert last.startswith("\x1b[K") == stream.isatty() or last.startswith("3") != stream.isatty()
