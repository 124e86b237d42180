"""Label rows of a block of images → a file that appears whole or not at all."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from lib.common.errors import UserError, reason_of
from lib.storage.folder import Folder


@dataclass(frozen=True)
class RowWriter:
    """Writes label rows from where they are made; small, so that it travels to the workers.

    The file of a block has the name of the block's first image. Where a worker is lost and its block is
    labelled again, the same file is written again: each image has its row once.

    Attributes:
        labels: folder of the files.
        start: begins their names; no two starts of a run have the same, because a later one has other
            blocks.
    """

    labels: Folder
    start: str

    def __call__(self, rows: Iterable[pa.Table]) -> pa.Table:
        """Write the rows of a block, at least one; gives their number, in the column `rows`.

        Raises:
            UserError: the file cannot be written.
        """
        table = pa.concat_tables(rows)
        name = f"{self.start}-{table['id'][0].as_py():012}.parquet"
        try:
            self.labels.write_table(name, table)
        except OSError as error:
            raise UserError(f"cannot write to {str(self.labels)!r}: {reason_of(error)}") from None
        return pa.table({"rows": [len(table)]})
