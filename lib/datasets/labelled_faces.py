"""Labelled faces in Parquet, as jobs.prepare leaves them: their columns, and their one reader."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lib.common.errors import UserError, reason_of
from lib.datasets.labels import AGE_BAND, Split, with_age_band
from lib.storage.folder import Folder
from lib.storage.parquet_folder import check_columns, parquet_files, read_columns

FACE_SCHEMA = pa.schema(
    [
        ("image", pa.binary()),  # JPEG, upright
        ("age", pa.int16()),  # whole years; of a band its middle
        ("age_low", pa.int16()),  # the first whole year that the age may be
        ("age_high", pa.int16()),  # the last one; both are the age where it is exact
        ("gender", pa.string()),  # "female" or "male"
        ("identity", pa.string()),  # null: the source has none
        ("group", pa.string()),  # null: the source has none
        ("source", pa.string()),
        ("source_row", pa.int64()),  # 0-based, of the metadata
        ("width", pa.int32()),  # of the original, or of the face's box, upright, in pixels
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of the original bytes, with the box where there is one
    ]
)
"""The columns of prepared faces."""
IMAGE_COLUMNS = ("image", "sha256", "source_row")
"""What `lib.scoring.stages.labelled_faces` takes."""
_TRUTH_COLUMNS = ("sha256", "age", "gender", "group", "source", "source_row")
_AGE_BAND = tuple(AGE_BAND.names)
"""Missing where an earlier version wrote the faces: their ages are exact."""


@dataclass(frozen=True)
class LabelledFaces:
    """The faces of one split.

    Attributes:
        folder: that holds `split=train`, `split=val` and `split=test`.
        split: one of them.
    """

    folder: Folder
    split: Split

    @property
    def rows(self) -> Folder:
        """The folder of the split."""
        return self.folder / f"split={self.split}"

    @cached_property
    def files(self) -> list[str]:
        """The Parquet files, in the file system of the folder.

        Raises:
            UserError: there are none.
        """
        what = f"the split {self.split} of faces/ from jobs/prepare.py"
        return parquet_files(self.rows, what)

    def truth(self) -> pa.Table:
        """Read the labels of all faces, without the images.

        Returns:
            (n) rows: `name` (source and row), `sha256`, `age`, `age_low` and `age_high`
                (float64, years), `gender`, `group`.

        Raises:
            UserError: files or columns are missing, a file is damaged, a column has another type, or
                there are no faces.
        """
        check_columns(self.rows, self.files[0], IMAGE_COLUMNS)
        rows = self._typed(read_columns(self.rows, self.files, _TRUTH_COLUMNS, _AGE_BAND))
        if not len(rows):
            raise UserError(f"the split {self.split} of {str(self.folder)!r} holds no faces")
        rows = with_age_band(rows)
        names = pc.binary_join_element_wise(
            rows["source"], rows["source_row"].cast(pa.string()), ":"
        )
        return pa.table(
            {
                "name": names,
                "sha256": rows["sha256"],
                **{name: rows[name].cast(pa.float64()) for name in ("age", *_AGE_BAND)},
                "gender": rows["gender"],
                "group": rows["group"],
            }
        )

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Read some columns of all faces in the order of the files, at most so many rows at a time."""
        for file in self.files:
            with pq.ParquetFile(file, filesystem=self.folder.filesystem) as parquet:
                for batch in parquet.iter_batches(rows, columns=list(columns)):
                    yield self._typed(pa.Table.from_batches([batch]))

    def _typed(self, rows: pa.Table) -> pa.Table:
        try:
            return rows.cast(pa.schema([FACE_SCHEMA.field(name) for name in rows.column_names]))
        except pa.ArrowException as error:
            raise UserError(
                f"the columns of {str(self.rows)!r} have other types than jobs.prepare writes: "
                f"{reason_of(error)}; run jobs.prepare again"
            ) from None


def digest(sha256: pa.ChunkedArray) -> str:
    """SHA-256 of many digests whatever their order: of the sorted hexadecimal digests, one a line."""
    lines = "\n".join(sorted(sha256.to_pylist()))
    return hashlib.sha256(lines.encode()).hexdigest()
