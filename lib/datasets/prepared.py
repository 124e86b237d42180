"""The faces and the dropped rows of a data set, written from its parts and verdicts.

The images go from the parts to the faces as they are, by one process: that is as fast as the disk, and
gives files of an even size whatever the pieces were.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.datasets.ingest import FOUND
from lib.datasets.labels import COLUMNS, SPLITS

FACES = pa.schema(
    [
        ("image", pa.binary()),  # JPEG, upright
        ("age", pa.int16()),  # whole years
        ("gender", pa.string()),  # "female" or "male"
        ("identity", pa.string()),  # null: the source has none
        ("group", pa.string()),  # null: the source has none
        ("source", pa.string()),
        ("source_row", pa.int64()),  # 0-based, of the metadata
        ("width", pa.int32()),  # of the original, upright, in pixels
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of the original bytes
    ]
)
DROPPED = pa.schema(
    [
        ("path", pa.string()),  # as the metadata has it
        ("source_row", pa.int64()),
        ("rule", pa.string()),  # one of `rules.REASONS`
        ("detail", pa.string()),  # what the rule saw, for people
    ]
)
FILE_BYTES = 128 << 20
GROUP_ROWS = 512
"""Rows of a row group, 4 to 10 MB: a reader that shuffles row groups and then the rows of a few of
them has little to hold, and little to read in vain."""

_SEED = 0


class Parts:
    """The parts of a data set, read as if they were one table of m images."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read all but the images.

        Args:
            files: in an order that is the same every time.
        """
        self._files = files
        self._table = pa.concat_tables(
            [FOUND.empty_table(), *(pq.read_table(file, columns=FOUND.names) for file in files)]
        ).combine_chunks()

    def places(self, rows: int) -> NDArray[np.int64]:
        """Where the image of each row of the metadata is: (n,) in 0..m-1, or -1: nowhere.

        Of several images under the path of a row the first one counts.
        """
        source_row, first = np.unique(self._table["source_row"].to_numpy(), return_index=True)
        places = np.full(rows, -1)
        places[source_row] = first
        return places

    def found(self, places: NDArray[np.int64]) -> pa.Table:
        """What was found out about the images at these places; all null where there is none."""
        return self._table.take(pa.array(places, mask=places < 0))

    def __len__(self) -> int:
        return self._table.num_rows

    def shuffled(self) -> Iterator[tuple[slice, pa.BinaryArray]]:
        """All images in small groups, in an order without order that is the same every time.

        Yields:
            The places of a group, and its images.
        """
        groups = list(self._groups())
        random.Random(_SEED).shuffle(groups)
        for file, number, places in groups:
            with pq.ParquetFile(file) as part:
                images = part.read_row_group(number, columns=["image"])["image"]
            yield places, images.combine_chunks()

    def _groups(self) -> Iterator[tuple[Path, int, slice]]:
        start = 0
        for file in self._files:
            metadata = pq.read_metadata(file)
            for number in range(metadata.num_row_groups):
                end = start + metadata.row_group(number).num_rows
                yield file, number, slice(start, end)
                start = end


def write_faces(folder: Path, parts: Parts, places: NDArray[np.int64], verdicts: pa.Table) -> None:
    """Write the rows that are kept into `folder/split=…/`, shuffled.

    Every split has at least one file, if only an empty one.

    Args:
        folder: made here.
        parts: with the images.
        places: (n,) of the image of each row in the parts.
        verdicts: (n) with the schema `verdicts.VERDICTS`.
    """
    row_at = np.full(len(parts), -1)
    kept = np.flatnonzero(pc.is_null(verdicts["rule"]))
    row_at[places[kept]] = kept
    labels = verdicts.select([name for name in FACES.names if name != "image"] + ["split"])
    labels = labels.combine_chunks()
    with _Splits(folder) as splits:
        for span, images in parts.shuffled():
            rows = row_at[span]
            here = np.flatnonzero(rows >= 0)
            splits.write(labels.take(rows[here]).append_column("image", images.take(here)))


def write_kept(folder: Path, judged: pa.Table) -> None:
    """Write the rows that the metadata alone does not drop, with the schema `labels.COLUMNS`."""
    _write(folder, judged.filter(pc.is_null(judged["rule"])).select(COLUMNS.names))


def write_dropped(folder: Path, judged: pa.Table) -> None:
    """Write the rows that a rule drops, with the schema `DROPPED`."""
    _write(folder, judged.filter(pc.is_valid(judged["rule"])).select(DROPPED.names))


def rows_not_once(folders: Sequence[Path], rows: int) -> int:
    """How many of the rows 0 to `rows` - 1 are not exactly once in the files of the folders."""
    times = np.zeros(rows, np.int64)
    for folder in folders:
        for file in folder.rglob("*.parquet"):
            source_rows = pq.ParquetFile(file).read(["source_row"])["source_row"].to_numpy()
            times += np.bincount(source_rows, minlength=rows)
    return int((times != 1).sum())


def _write(folder: Path, table: pa.Table) -> None:
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "part-00000.parquet", compression="zstd")


class _Splits:
    """A folder for each split."""

    def __init__(self, folder: Path) -> None:
        self._files = {split: _Files(folder / f"split={split}") for split in SPLITS}

    def write(self, faces: pa.Table) -> None:
        """Sort the faces into their splits."""
        for split, files in self._files.items():
            files.write(faces.filter(pc.equal(faces["split"], split)).select(FACES.names))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for files in self._files.values():
            files.close(finish=kind is None)


class _Files:
    """Faces of one split: shuffled within row groups, which fill one file after the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._random = np.random.default_rng(_SEED)
        self._number = 0
        self._waiting = FACES.empty_table()
        self._open()

    def write(self, faces: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, faces])
        if self._waiting.num_rows >= GROUP_ROWS:
            self._write_group()
            if self._bytes >= FILE_BYTES:
                self._writer.close()
                self._open()

    def close(self, finish: bool) -> None:
        if finish and self._waiting.num_rows:
            self._write_group()
        self._writer.close()

    def _open(self) -> None:
        self._bytes = 0
        text = [name for name in FACES.names if name != "image"]
        self._writer = pq.ParquetWriter(
            self._folder / f"part-{self._number:05}.parquet",
            FACES,
            # A JPEG does not get smaller, and its smallest and largest bytes tell nobody anything.
            compression={name: "none" if name == "image" else "zstd" for name in FACES.names},
            use_dictionary=text,
            write_statistics=text,
        )
        self._number += 1

    def _write_group(self) -> None:
        order = self._random.permutation(self._waiting.num_rows)
        group = self._waiting.take(order)
        self._writer.write_table(group)
        self._bytes += group.nbytes
        self._waiting = FACES.empty_table()
