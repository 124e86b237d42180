"""Labelled faces in Parquet, as jobs/prepare.py leaves them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from lib.common.errors import UserError
from lib.datasets.labels import Split
from lib.storage.folder import Folder
from lib.storage.parquet_folder import check_columns, parquet_files, read_columns

IMAGE_COLUMNS = ("image", "sha256", "source_row")
"""What `lib.scoring.stages.labelled_faces` takes."""
_TRUTH_COLUMNS = ("sha256", "age", "gender", "group", "source", "source_row")


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
        """Read what is known about each face, without the pictures.

        Returns:
            `name` (source and row), `sha256`, `age` (float64, years), `gender`, `group`.

        Raises:
            UserError: files or columns are missing, a file is damaged, or there are no faces.
        """
        check_columns(self.rows, self.files[0], IMAGE_COLUMNS)
        rows = read_columns(self.rows, self.files, _TRUTH_COLUMNS)
        if not len(rows):
            raise UserError(f"the split {self.split} of {str(self.folder)!r} holds no faces")
        names = pc.binary_join_element_wise(
            rows["source"], rows["source_row"].cast(pa.string()), ":"
        )
        return pa.table(
            {
                "name": names,
                "sha256": rows["sha256"],
                "age": rows["age"].cast(pa.float64()),
                "gender": rows["gender"],
                "group": rows["group"],
            }
        )


def digest(sha256: pa.ChunkedArray) -> str:
    """One sha256 of many, whatever their order: of the sorted hexadecimal digests, one a line."""
    lines = "\n".join(sorted(sha256.to_pylist()))
    return hashlib.sha256(lines.encode()).hexdigest()
