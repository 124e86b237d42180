"""Writes the faces and the dropped rows of a data set, from intermediate shards and cleaned rows.

One process copies the encoded images from the shards to the faces. That is as fast as the disk, and gives
files of an even size whatever the size of the shards.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lib.datasets.ingest import IMAGE_FACTS
from lib.datasets.labelled_faces import FACE_SCHEMA
from lib.datasets.labels import LABELS, SPLITS

DROPPED_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # as the metadata has it
        ("source_row", pa.int64()),
        ("rule", pa.string()),  # one of `rules.REASONS`
        ("detail", pa.string()),  # the values that the rule compared, for people
    ]
)
FILE_BYTES = 128 << 20
GROUP_ROWS = 512
"""Rows of a row group, 4 to 10 MB: small enough for readers that shuffle row groups in memory."""

_SEED = 0


class IntermediateShards:
    """The intermediate shards of a data set as one table of m images."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read all columns but the images.

        Args:
            files: in a deterministic order.
        """
        self._files = files
        self._table = pa.concat_tables(
            [
                IMAGE_FACTS.empty_table(),
                *(pq.read_table(file, columns=IMAGE_FACTS.names) for file in files),
            ]
        ).combine_chunks()

    def places(self, rows: int) -> NDArray[np.int64]:
        """The index of the image of each row of the metadata: (n,) in 0..m-1; -1 for none.

        If several images have the path of a row, the first one counts.
        """
        source_row, first = np.unique(self._table["source_row"].to_numpy(), return_index=True)
        places = np.full(rows, -1)
        places[source_row] = first
        return places

    def facts(self, places: NDArray[np.int64]) -> pa.Table:
        """Facts about the images at these places: (n) `IMAGE_FACTS`; all null for the place -1."""
        return self._table.take(pa.array(places, mask=places < 0))

    def __len__(self) -> int:
        return self._table.num_rows

    def shuffled(self) -> Iterator[tuple[slice, pa.BinaryArray]]:
        """All images in small groups, in a deterministic shuffled order.

        Yields:
            The places of a group, and its images.
        """
        groups = list(self._groups())
        random.Random(_SEED).shuffle(groups)
        for file, number, places in groups:
            with pq.ParquetFile(file) as shard:
                images = shard.read_row_group(number, columns=["image"])["image"]
            yield places, images.combine_chunks()

    def _groups(self) -> Iterator[tuple[Path, int, slice]]:
        start = 0
        for file in self._files:
            metadata = pq.read_metadata(file)
            for number in range(metadata.num_row_groups):
                end = start + metadata.row_group(number).num_rows
                yield file, number, slice(start, end)
                start = end


def write_faces(
    folder: Path, shards: IntermediateShards, places: NDArray[np.int64], cleaned: pa.Table
) -> None:
    """Write the rows that are kept into `folder/split=…/`, shuffled.

    Every split has at least one file, which may be empty.

    Args:
        folder: created.
        shards: with the images.
        places: (n,) of the image of each row in the shards.
        cleaned: (n) with the schema `cleaning.CLEANED`.
    """
    row_at = np.full(len(shards), -1)
    kept = np.flatnonzero(pc.is_null(cleaned["rule"]))
    row_at[places[kept]] = kept
    labels = cleaned.select([name for name in FACE_SCHEMA.names if name != "image"] + ["split"])
    labels = labels.combine_chunks()
    with ExitStack() as stack:
        files = {s: stack.enter_context(_Files(folder / f"split={s}")) for s in SPLITS}
        for span, images in shards.shuffled():
            rows = row_at[span]
            here = np.flatnonzero(rows >= 0)
            faces = labels.take(rows[here]).append_column("image", images.take(here))
            for split in SPLITS:
                files[split].write(
                    faces.filter(pc.equal(faces["split"], split)).select(FACE_SCHEMA.names)
                )


def write_kept(folder: Path, cleaned: pa.Table) -> None:
    """Write the rows that the metadata alone does not drop, with the schema `labels.LABELS`."""
    _write(folder, cleaned.filter(pc.is_null(cleaned["rule"])).select(LABELS.names))


def write_dropped(folder: Path, cleaned: pa.Table) -> None:
    """Write the rows that a rule drops, with the schema `DROPPED_SCHEMA`."""
    _write(folder, cleaned.filter(pc.is_valid(cleaned["rule"])).select(DROPPED_SCHEMA.names))


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


class _Files:
    """Faces of one split: shuffled within row groups, which fill one file after the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._random = np.random.default_rng(_SEED)
        self._number = 0
        self._waiting = FACE_SCHEMA.empty_table()
        self._open()

    def write(self, faces: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, faces])
        if self._waiting.num_rows >= GROUP_ROWS:
            self._write_group()
            if self._bytes >= FILE_BYTES:
                self._writer.close()
                self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None and self._waiting.num_rows:
            self._write_group()
        self._writer.close()

    def _open(self) -> None:
        self._bytes = 0
        text = [name for name in FACE_SCHEMA.names if name != "image"]
        self._writer = pq.ParquetWriter(
            self._folder / f"part-{self._number:05}.parquet",
            FACE_SCHEMA,
            # JPEGs do not compress, and statistics of their bytes are useless.
            compression={name: "none" if name == "image" else "zstd" for name in FACE_SCHEMA.names},
            use_dictionary=text,
            write_statistics=text,
        )
        self._number += 1

    def _write_group(self) -> None:
        order = self._random.permutation(self._waiting.num_rows)
        group = self._waiting.take(order)
        self._writer.write_table(group)
        self._bytes += group.nbytes
        self._waiting = FACE_SCHEMA.empty_table()
