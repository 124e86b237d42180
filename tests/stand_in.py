"""Stands in for `python`, `make` and `ray` where the README's commands are tried out.

Labelling, once, and all that reads labels runs for real. The jobs whose whole runs have tests of their
own check their options and end; so does a submitted job. `make` shows its recipe.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lib.options import parse

REAL = "README_REAL_PATH"
"""Environment variable: where the programs themselves are looked for."""
LABELS = "README_LABELS"
"""Environment variable: the output of the one labelling that runs."""
READERS = ("jobs.status", "jobs.report")


def main(program: str, *arguments: str) -> None:
    """Do what is left of a program."""
    if program == "make":
        run("make", "--dry-run", *arguments)
    elif program == "python":
        python(arguments)
    elif arguments[:2] == ("job", "submit"):
        submit(arguments[2:])
    elif arguments[:1] not in (("start",), ("stop",)):
        sys.exit(f"not a command of this project: ray {' '.join(arguments)}")


def python(arguments: Sequence[str]) -> None:
    """Run it, or check the options of the job."""
    if arguments[0] == "-c":
        run(sys.executable, *arguments)
    module, *options = arguments[1:]
    output = os.environ[LABELS]
    first_labelling = output in options and module == "jobs.score" and not os.path.exists(output)  # noqa: PTH110
    if module in READERS or first_labelling:
        run(sys.executable, *arguments)
    checked = parse(importlib.import_module(module).Options, options, module)
    checked.check()
    if module == "jobs.import_weights" and checked.trunk:  # what training starts with
        checked.output.mkdir()
        (checked.output / "trunk.keras").touch()
    sys.stdout.write(f"checked: {module}\n")


def submit(arguments: Sequence[str]) -> None:
    """Check what would be submitted."""
    where = arguments.index("--")
    own = dict(zip(arguments[:where:2], arguments[1:where:2], strict=True))
    assert own.keys() == {"--address", "--working-dir", "--runtime-env"}, own
    with open(own["--runtime-env"], encoding="utf-8"):
        assert os.path.isdir(own["--working-dir"])  # noqa: PTH112
    program, *rest = arguments[where + 1 :]
    assert program == "python"
    python(rest)


def run(*command: str) -> NoReturn:
    """Become the program itself."""
    environment = {**os.environ, "PATH": os.environ[REAL]}
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
