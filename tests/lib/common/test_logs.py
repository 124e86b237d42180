import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from lib.common import logs
from lib.common.progress import Progress
from lib.output.run_record import run_id


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], str]]:
    """What went to standard error; the root logger is as it was afterwards."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    logs.start()
    yield lambda: capsys.readouterr().err
    root.setLevel(level)


def test_lines_for_people(said: Callable[[], str]) -> None:
    logging.getLogger("job").info("%d images", 3)
    assert said() == "3 images\n"


def test_of_other_packages_only_warnings(said: Callable[[], str]) -> None:
    lines = "log.info('found credentials'); log.warning('no credentials')"
    for file in ("venv/lib/site-packages/other/package.py", "lib/storage/s3.py"):
        exec(compile(lines, file, "exec"), {"log": logging.getLogger("any")})
    assert said() == "no credentials\nfound credentials\nno credentials\n"


def test_lines_for_machines(said: Callable[[], str]) -> None:
    logs.as_json("0a1b2c3d")
    logging.getLogger("job").warning("é\nin two lines", extra={logs.FACTS: {"images": 3}})
    with Progress(4, lambda: Counter(ok=4)):
        pass
    first, second = map(json.loads, said().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "warning", "logger": "job", "run": "0a1b2c3d", "message": "é\nin two lines", "images": 3,
    }  # fmt: skip
    assert (second["run"], second["images"], second["statuses"]) == ("0a1b2c3d", 4, {"ok": 4})


def test_a_run_keeps_its_id() -> None:
    assert run_id("/out", {"a": 1, "b": 2}) == run_id("/out", {"b": 2, "a": 1})
    assert (
        len({run_id("/out", {"a": 1}), run_id("/out", {"a": 2}), run_id("/other", {"a": 1})}) == 3
    )
