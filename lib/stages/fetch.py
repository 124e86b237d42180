"""Manifest rows → encoded bytes."""

from dataclasses import dataclass

import pyarrow as pa

from lib.archive import FetchError, fetch
from lib.stages.stage import Stopwatch

FETCHED = pa.schema([("data", pa.large_binary()), ("status", pa.string()), ("error", pa.string())])
"""What `Fetch` adds: the encoded image, or what went wrong; one of both is null."""


@dataclass
class Fetch:
    """Adds the columns of `FETCHED`.

    Attributes:
        max_bytes: what is larger is not read.
    """

    max_bytes: int

    def setup(self, watch: Stopwatch) -> None:
        """Nothing to load."""
        self._watch = watch

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Read the bytes of all images of the batch."""
        with self._watch("fetch"):
            fetched = [self._fetch(uri) for uri in batch["uri"].to_pylist()]
        columns = pa.Table.from_pylist(fetched, schema=FETCHED)
        for name in FETCHED.names:
            batch = batch.append_column(name, columns[name])
        return batch

    def _fetch(self, uri: str) -> dict[str, bytes | str | None]:
        try:
            return {"data": fetch(uri, self.max_bytes)}
        except FetchError as error:
            return {"status": error.status, "error": str(error)}
