"""Rows in Parquet files, shared out in blocks."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.scoring.rows import Rows, block_rows


def rows_of(folder: Path, files: int, rows: int, group_rows: int) -> Rows:
    names = [str(folder / f"{number}.parquet") for number in range(files)]
    for number, name in enumerate(names):
        ids = range(number * rows, (number + 1) * rows)
        table = pa.table({"id": ids, "other": [0] * rows})
        pq.write_table(table, name, row_group_size=group_rows)
    return Rows(tuple(names), None, files * rows, ("id",))


@pytest.mark.parametrize("images", [1, 100, 5_000, 10_000_000])
def test_blocks_have_the_size_that_suits_an_archive(images: int) -> None:
    rows = block_rows(images)
    assert rows % 16 == 0
    assert 16 <= rows <= 512
    assert images < 1000 or images / rows >= 40


@pytest.mark.parametrize(
    ("files", "rows", "group_rows"), [(1, 5, 100), (3, 700, 16), (2, 3000, 3000), (1, 100_000, 512)]
)
def test_every_row_is_in_one_block(files: int, rows: int, group_rows: int, tmp_path: Path) -> None:
    source = rows_of(tmp_path, files, rows, group_rows)
    blocks = source.blocks()
    tables = [source.read(block) for block in blocks[:: max(1, len(blocks) // 50)]]
    assert all(table.column_names == ["id"] for table in tables)
    assert [len(table) for table in tables] == [
        b.rows for b in blocks[:: max(1, len(blocks) // 50)]
    ]
    assert max(block.rows for block in blocks) <= block_rows(files * rows)
    assert sum(block.rows for block in blocks) == files * rows
    if len(blocks) < 200:
        ids = [id_ for block in blocks for id_ in source.read(block)["id"].to_pylist()]
        assert ids == list(range(files * rows))
