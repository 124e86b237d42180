"""Manifest rows → encoded bytes."""

from dataclasses import dataclass

import pyarrow as pa

from lib.archive import FetchError, fetch
from lib.stages.stage import Stopwatch


@dataclass
class Fetch:
    """Adds `data` (the encoded image; null where it could not be had), `status` and `error`.

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
        data, status, error = zip(*fetched, strict=True)
        return (
            batch.append_column("data", pa.array(data, pa.large_binary()))
            .append_column("status", pa.array(status, pa.string()))
            .append_column("error", pa.array(error, pa.string()))
        )

    def _fetch(self, uri: str) -> tuple[bytes | None, str | None, str | None]:
        try:
            return fetch(uri, self.max_bytes), None, None
        except FetchError as error:
            return None, error.status, str(error)
