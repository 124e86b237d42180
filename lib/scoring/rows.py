"""The rows to label, in Parquet files, and the blocks that they are shared out in."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from lib.scoring.stages.stage import with_column

BLOCKS = 48
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 512
"""A block is what is committed at a time, about 48 of them for small archives. Small ones lose less
when a run is killed and leave no worker idle at the end; large ones make fewer files."""
READS_AT_A_TIME = 8
MOST_DEATHS = 2
"""Workers that may end at a block, and then at one image alone: with others beside it memory may have
been short."""


def block_rows(images: int) -> int:
    """Rows of a block where there are so many images."""
    return min(max(1, round(images / BLOCKS / SMALLEST_BLOCK)) * SMALLEST_BLOCK, LARGEST_BLOCK)


class Block(NamedTuple):
    """Where the rows of a block are.

    Attributes:
        file: in the file system.
        group: number of the row group.
        start: first row in it.
        rows: number of rows.
        fault: `STATUS: REASON` where it has turned out that they cannot be read.
    """

    file: str
    group: int
    start: int
    rows: int
    fault: str | None = None

    def split(self, rows: int) -> "tuple[Block, Block]":
        """A block of the first rows, and one of the others."""
        rest = self._replace(start=self.start + rows, rows=self.rows - rows)
        return self._replace(rows=rows), rest

    def singles(self) -> "list[Block]":
        """A block for each row."""
        return [self._replace(start=self.start + row, rows=1) for row in range(self.rows)]

    def as_table(self) -> pa.Table:
        """It as a table of one row, as a worker takes it."""
        return pa.Table.from_pylist([self._asdict()])


def with_fault(rows: pa.Table, fault: str) -> pa.Table:
    """The rows with what they are to say in place of labels: `STATUS: REASON`."""
    return with_column(rows, "fault", pa.array([fault] * len(rows)))


def fatal_image(deaths: int) -> str:
    """The fault of an image at which so many workers have ended."""
    return f"decode_error: it ended the process that read it, {deaths} times"


@dataclass(frozen=True)
class Rows:
    """Rows to label, in Parquet files; small, so that it travels to the workers, which read them.

    Rows are read a row group at a time: it pays to make them as large as blocks.

    Attributes:
        files: in the file system.
        filesystem: where the files are; None: on this machine.
        count: rows of all files together.
        columns: to read; None: all.
    """

    files: tuple[str, ...]
    filesystem: pyarrow.fs.FileSystem | None
    count: int
    columns: tuple[str, ...] | None = None

    def blocks(self) -> list[Block]:
        """All blocks, in the order of the rows."""
        most = block_rows(self.count)
        with ThreadPoolExecutor(READS_AT_A_TIME) as threads:
            return [
                Block(file, group, start, min(most, rows - start))
                for file, groups in zip(
                    self.files, threads.map(self._groups, self.files), strict=True
                )
                for group, rows in enumerate(groups)
                for start in range(0, rows, most)
            ]

    def read(self, block: Block) -> pa.Table:
        """The rows of a block."""
        columns = None if self.columns is None else list(self.columns)
        with self._open(block.file) as opened:
            table = opened.read_row_group(block.group, columns).slice(block.start, block.rows)
        return table if block.fault is None else with_fault(table, block.fault)

    def _groups(self, file: str) -> list[int]:
        with self._open(file) as opened:
            groups = opened.metadata.num_row_groups
            return [opened.metadata.row_group(number).num_rows for number in range(groups)]

    def _open(self, file: str) -> pq.ParquetFile:
        return pq.ParquetFile(file, filesystem=self.filesystem)
