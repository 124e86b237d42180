"""Processes that label on this machine, and what ends them."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.common.errors import UserError
from lib.faces.registry import DetectorSpec
from lib.models.bundle import Bundle
from lib.scoring.labelling import Labelling
from lib.scoring.on_this_machine import MOST_DEATHS, label_here
from lib.scoring.placement import Pool
from lib.scoring.rows import Rows
from lib.scoring.stages.stage import Stage, Stopwatch
from tests.bundles import make_bundle

ROWS = 300


@dataclass
class Square:
    """Squares numbers; at some of them something goes wrong."""

    trouble: str = ""
    once: str = ""

    needs: ClassVar = ("id",)
    drops: ClassVar = ()
    gives: ClassVar = ("square",)

    def setup(self, watch: Stopwatch) -> None:
        self._watch = watch

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = batch["id"].to_pylist()
        if 100 in ids:
            self._fail()
        with self._watch("square"):
            return batch.append_column("square", pa.array([id_ * id_ for id_ in ids]))

    def _fail(self) -> None:
        match self.trouble:
            case "killed once" if not Path(self.once).exists():
                Path(self.once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case "killed always":
                os.kill(os.getpid(), signal.SIGKILL)
            case "refused":
                raise UserError("this cannot be; do that")
            case "broken":
                raise ZeroDivisionError("a fault\nof several lines")


@dataclass
class Work:
    """Stands in for `Labelling`."""

    bundle: Bundle
    stage: Stage
    detector: DetectorSpec = field(default_factory=lambda: DetectorSpec("none"))

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        return [self.stage]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def rows_in(folder: Path, count: int = ROWS) -> Rows:
    file = folder / "rows.parquet"
    pq.write_table(pa.table({"id": range(count)}), file, row_group_size=16)
    return Rows((str(file),), None, count)


def squares(rows: Rows, bundle: Bundle, stage: Square) -> dict[int, int]:
    seconds: dict[str, float] = {}
    labelling = cast(Labelling, Work(bundle, stage))
    tables = list(label_here(rows, labelling, seconds.update))
    assert seconds["square"] > 0
    found = pa.concat_tables(tables)
    assert len(found) == rows.count
    return dict(zip(found["id"].to_pylist(), found["square"].to_pylist(), strict=True))


@pytest.mark.parametrize("count", [1, 20, ROWS])
def test_every_row_once(count: int, bundle: Bundle, tmp_path: Path) -> None:
    found = squares(rows_in(tmp_path, count), bundle, Square())
    assert found == {number: number * number for number in range(count)}


def test_a_block_whose_worker_is_lost_is_done_again(bundle: Bundle, tmp_path: Path) -> None:
    stage = Square("killed once", str(tmp_path / "killed"))
    found = squares(rows_in(tmp_path), bundle, stage)
    assert found == {number: number * number for number in range(ROWS)}
    assert Path(stage.once).exists()


def test_what_ends_every_worker_is_named(bundle: Bundle, tmp_path: Path) -> None:
    says = rf"{MOST_DEATHS} worker processes ended \(exit code -9\) at the images 0 to 15 of row group 6"
    with pytest.raises(UserError, match=says):
        squares(rows_in(tmp_path), bundle, Square("killed always"))


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("refused", "^this cannot be; do that$"),
        ("broken", "^the run stopped: ZeroDivisionError: a fault$"),
    ],
)
def test_what_fails_in_a_worker_is_one_line(
    trouble: str, says: str, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        squares(rows_in(tmp_path), bundle, Square(trouble))
