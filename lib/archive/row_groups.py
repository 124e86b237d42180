"""Tables in groups of rows that can be read alone: Parquet, and streams of Arrow."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lib.archive.entry import ARROW, suffix_of


class ParquetGroups:
    """The row groups of a Parquet file.

    Attributes:
        schema: of the table.
        counts: the rows of each group.
    """

    def __init__(self, file: BinaryIO, read_bytes: int) -> None:
        """Read the footer; each read of a column takes `read_bytes` at once.

        Raises:
            pa.ArrowException: the file is damaged; OSError without a number means the same.
        """
        self._file = pq.ParquetFile(file, buffer_size=read_bytes, pre_buffer=False)
        self.schema: pa.Schema = self._file.schema_arrow
        metadata = self._file.metadata
        self.counts = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]

    def batches(self, group: int, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read a group.

        Args:
            group: its number.
            rows: of a batch, at most.
            columns: names; `column.field` reads one field of a column of structs.
        """
        return self._file.iter_batches(
            rows, row_groups=[group], columns=list(columns), use_threads=False
        )

    def may_hold_null(self, group: int, column: str, field: str) -> bool:
        """Whether a field of a column of structs may be null in a group."""
        facts = self._file.metadata.row_group(group)
        for leaf in map(facts.column, range(facts.num_columns)):
            if leaf.path_in_schema == f"{column}.{field}":
                known = leaf.statistics
                return not (known and known.has_null_count) or known.null_count > 0
        return True


class ArrowGroups:
    """The record batches of a stream or file of Arrow; going back reads it from its beginning.

    Attributes:
        schema: of the table.
        counts: the rows of each batch.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the whole stream once, one batch at a time.

        Raises:
            pa.ArrowException: the file is damaged; OSError without a number means the same.
        """
        self._file = file
        self._rewind()
        self.schema: pa.Schema = self._reader.schema
        self.counts = [batch.num_rows for batch in self._reader]
        self._rewind()

    def _rewind(self) -> None:
        # Arrow's file format is such a stream between a mark of 8 bytes and a footer.
        self._file.seek(0)
        self._file.seek(8 if self._file.read(6) == b"ARROW1" else 0)
        self._reader = pa.ipc.open_stream(self._file)
        self._group, self._batch = -1, None

    def _read(self, group: int) -> pa.RecordBatch:
        if group < self._group:
            self._rewind()
        while self._group < group:
            self._batch = self._reader.read_next_batch()
            self._group += 1
        return self._batch

    def batches(self, group: int, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read a group, as `ParquetGroups.batches` does."""
        whole = self._read(group)
        names = [name for name in columns if name in self.schema.names]
        parts = [whole[name] for name in names]
        for leaf in set(columns) - set(names):
            name, _, field = leaf.rpartition(".")
            names.append(name)
            parts.append(pa.StructArray.from_arrays([pc.struct_field(whole[name], field)], [field]))
        chosen = pa.RecordBatch.from_arrays(parts, names)
        for start in range(0, len(whole), rows):
            yield chosen.slice(start, rows)

    def may_hold_null(self, group: int, column: str, field: str) -> bool:
        """Whether a field of a column of structs is null somewhere in a group."""
        values = self._read(group)[column]
        return values.null_count + values.field(field).null_count > 0


RowGroups = ParquetGroups | ArrowGroups


def open_groups(file: BinaryIO, uri: str, read_bytes: int = 8 << 20) -> RowGroups:
    """Open a table by the ending of its name; a column of Parquet is read by `read_bytes`."""
    return ArrowGroups(file) if suffix_of(uri) == ARROW else ParquetGroups(file, read_bytes)
