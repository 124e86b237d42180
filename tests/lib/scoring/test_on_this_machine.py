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
from lib.models.bundle import Bundle, PrecisionChoice, read_bundle
from lib.scoring.labelling import Labelling
from lib.scoring.on_this_machine import label_here
from lib.scoring.placement import Pool
from lib.scoring.rows import Rows
from lib.scoring.stages.stage import BATCH, Stage, Stopwatch

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
        match self.trouble:
            case "killed at the start":
                os.kill(os.getpid(), signal.SIGKILL)
            case "ended at the start":
                os._exit(3)

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = batch["id"].to_pylist()
        faults = batch["fault"].to_pylist() if "fault" in batch.column_names else [None] * len(ids)
        if self.trouble == "always" or (100, None) in zip(ids, faults, strict=True):
            self._fail()
        with self._watch("square"):
            squares = pa.array([id_ * id_ for id_ in ids])
        fault = pa.array(faults, pa.string())
        return pa.table({"id": batch["id"], "square": squares, "fault": fault})

    def _fail(self) -> None:
        match self.trouble:
            case "killed once" if not Path(self.once).exists():
                Path(self.once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case "killed always" | "always":
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
    precision: PrecisionChoice = "auto"

    def stages(self, pool: Pool, last: bool) -> list[Stage]:
        return [self.stage]

    def batch(self, pool: Pool) -> int:
        return BATCH


@pytest.fixture(scope="module")
def bundle(model: Path) -> Bundle:
    return read_bundle(model)


def rows_in(folder: Path, count: int = ROWS, row_group_size: int = 16) -> Rows:
    file = folder / "rows.parquet"
    pq.write_table(pa.table({"id": range(count)}), file, row_group_size=row_group_size)
    return Rows((str(file),), None, count)


def labelled(rows: Rows, bundle: Bundle, stage: Square) -> pa.Table:
    seconds: dict[str, float] = {}
    labelling = cast(Labelling, Work(bundle, stage))
    found = pa.concat_tables(label_here(rows, labelling, seconds.update)).sort_by("id")
    assert seconds["square"] > 0
    assert found["id"].to_pylist() == list(range(rows.count))
    assert found["square"].to_pylist() == [number * number for number in range(rows.count)]
    return found


@pytest.mark.parametrize("count", [1, 20, ROWS])
def test_every_row_once(count: int, bundle: Bundle, tmp_path: Path) -> None:
    assert labelled(rows_in(tmp_path, count), bundle, Square())["fault"].null_count == count


def test_a_block_whose_worker_is_lost_is_done_again(bundle: Bundle, tmp_path: Path) -> None:
    stage = Square("killed once", str(tmp_path / "killed"))
    found = labelled(rows_in(tmp_path), bundle, stage)
    assert found["fault"].null_count == ROWS
    assert Path(stage.once).exists()


def test_an_image_that_ends_every_worker_gets_its_row(bundle: Bundle, tmp_path: Path) -> None:
    found = labelled(rows_in(tmp_path), bundle, Square("killed always"))
    faults = {row["id"]: row["fault"] for row in found.to_pylist() if row["fault"]}
    assert faults == {100: "decode_error: it ended the process that read it, 2 times"}


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("always", r"exit code -9\): is there enough memory\?$"),
        ("killed at the start", r"exit code -9\): is there enough memory\?$"),
        ("ended at the start", r"exit code 3\): what they printed says why$"),
    ],
)
def test_workers_that_always_end_are_named(
    trouble: str, says: str, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"^the worker processes end by themselves \({says}"):
        labelled(rows_in(tmp_path), bundle, Square(trouble))


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
        labelled(rows_in(tmp_path), bundle, Square(trouble))
