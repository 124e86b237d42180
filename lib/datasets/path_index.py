"""An index of the metadata by the path of the image."""

from bisect import bisect_left

import pyarrow as pa
import pyarrow.compute as pc


class PathIndex:
    """Rows by path, in two sorted Arrow arrays: unlike a dict, processes of a machine share one copy."""

    def __init__(self, paths: pa.ChunkedArray) -> None:
        """Sort the paths.

        Args:
            paths: (n,) strings; null where a row names no image.
        """
        order = pc.sort_indices(paths)[: len(paths) - paths.null_count]  # nulls are at the end
        self._paths: pa.StringArray = paths.take(order).combine_chunks()
        self._rows: pa.UInt64Array = order

    def rows(self, path: str) -> list[int]:
        """The rows that name the path, in ascending order."""
        # Arrow orders strings by their UTF-8 bytes, which is Python's order of code points.
        places = range(len(self._paths))
        place = bisect_left(places, path, key=lambda place: self._paths[place].as_py())
        rows = []
        while place < len(self._paths) and self._paths[place].as_py() == path:
            rows.append(self._rows[place].as_py())
            place += 1
        return rows

    def __contains__(self, path: str) -> bool:
        return bool(self.rows(path))
