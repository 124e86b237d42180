"""The structure of the code: which folder of lib/ may import which, who may import Ray, and sizes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_head import PROJECT

ROOMS = (
    ("audit",),
    ("report", "training"),
    ("evaluation",),
    ("datasets",),
    ("output",),
    ("labeller",),
    ("scoring",),
    ("models", "faces"),
    ("tasks", "network_input"),
    ("archive",),
    ("storage",),
    ("images",),
    ("common",),
)
"""Folders and modules of lib/, from the top: each one imports only what stands below it."""
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
MAY_IMPORT_RAY = {"scoring", "training"}
MOST_LINES = 400
MOST_MODULES_AT_THE_ROOT = 4


def modules(*folders: str) -> list[Path]:
    return sorted(
        path.relative_to(PROJECT) for folder in folders for path in (PROJECT / folder).rglob("*.py")
    )


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file, in functions, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def for_types_only(tree: ast.AST) -> Iterator[str]:
    """What is imported under `if TYPE_CHECKING`, hence never at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                yield from imports(statement)


def breaches(path: Path, source: str) -> list[str]:
    """What a file imports against the rules, in words."""
    tree = ast.parse(source)
    top, *rest = path.parts
    room = rest[0].removesuffix(".py")
    at_run_time = set(imports(tree)) - set(for_types_only(tree))
    found = []
    for name in sorted(set(imports(tree))):
        package, *names = name.split(".")
        if package == "ray" and name in at_run_time and room not in MAY_IMPORT_RAY:
            found.append(f"{path} imports Ray")
        if top == "jobs" and package == "jobs":
            found.append(f"{path} imports another job")
        if top == "lib" and package == "jobs":
            found.append(f"{path} imports a job")
        if top == "lib" and package == "lib" and room not in ("__init__", names[0]):
            other = names[0]
            if other not in FLOOR:
                found.append(f"{path} imports {name}, which has no place in ROOMS")
            elif FLOOR[other] <= FLOOR[room]:
                found.append(f"{path} imports {name}, which does not stand below it")
    return found


@pytest.mark.parametrize("path", modules("lib", "jobs"), ids=str)
def test_imports_run_one_way(path: Path) -> None:
    assert breaches(path, (PROJECT / path).read_text("utf-8")) == []


@pytest.mark.parametrize("path", modules("lib", "jobs"), ids=str)
def test_a_module_is_one_thing(path: Path) -> None:
    assert len((PROJECT / path).read_text("utf-8").splitlines()) <= MOST_LINES


def test_few_modules_at_the_root() -> None:
    assert len(list((PROJECT / "lib").glob("*.py"))) <= MOST_MODULES_AT_THE_ROOT


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("lib/storage/folder.py", "from lib.archive.entry import File", "does not stand below"),
        ("lib/models/bundle.py", "import lib.faces.crop", "does not stand below"),
        ("lib/faces/crop.py", "def crop():\n    from lib.scoring import schema", "not stand below"),
        ("lib/faces/crop.py", "from lib.cellar import wine", "no place in ROOMS"),
        ("lib/output/reader.py", "import ray.data", "imports Ray"),
        ("jobs/prepare.py", "def run():\n    import ray", "imports Ray"),
        ("jobs/train.py", "from jobs import evaluate", "another job"),
        ("lib/training/loop.py", "from jobs.train import Options", "a job"),
    ],
)
def test_a_breach_is_found(path: str, source: str, breach: str) -> None:
    (found,) = breaches(Path(path), source)
    assert breach in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lib/report/page.py", "from lib.images import Limits"),
        ("lib/training/loop.py", "import ray.train"),
        ("lib/evaluation/labelling.py", "if TYPE_CHECKING:\n    import ray.data"),
        ("jobs/score.py", "from lib.scoring import pipeline"),
    ],
)
def test_what_is_allowed_is_no_breach(path: str, source: str) -> None:
    assert breaches(Path(path), source) == []
