"""Stands in for `python`, `make` and `ray` where the README's commands are tried out.

All jobs run for real but training, of which a whole run has tests of its own: its options are checked,
and the embedded model stands in for what it would make. `make` shows its recipe; a cluster is there.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jobs import train
from lib.common.options import parse

REAL = "README_REAL_PATH"
"""Environment variable: where the programs themselves are looked for."""
EMBEDDED = "models/default"


def main(program: str, *arguments: str) -> None:
    """Do what is left of a program."""
    if program == "make":
        run("make", "--dry-run", *arguments)
    elif program == "python":
        python(arguments)
    elif arguments[:2] == ("job", "submit"):
        submit(arguments)
    elif arguments[:1] not in (("start",), ("stop",)):
        sys.exit(f"not a command of this project: ray {' '.join(arguments)}")


def python(arguments: Sequence[str]) -> None:
    """Run it; of training, check the options."""
    if arguments[:2] != ("-m", "jobs.train"):
        run(sys.executable, *arguments)
    options = parse(train.Options, arguments[2:])
    options.check()
    shutil.copytree(EMBEDDED, Path(options.output, "bundle"))
    sys.stdout.write("checked: jobs.train\n")


def submit(arguments: Sequence[str]) -> None:
    """Submit it; of training, check the options."""
    where = arguments.index("--")
    own = dict(zip(arguments[2:where:2], arguments[3:where:2], strict=True))
    assert own.keys() == {"--address", "--working-dir", "--runtime-env"}, own
    assert Path(own["--runtime-env"]).is_file()
    assert Path(own["--working-dir"]).is_dir()
    program, *rest = arguments[where + 1 :]
    assert program == "python"
    if "jobs.train" in rest:
        python(tuple(rest))
    else:
        run("ray", *arguments)


def run(*command: str) -> NoReturn:
    """Become the program itself."""
    environment = {**os.environ, "PATH": os.environ[REAL]}
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
