"""Sources that refine a listing of a folder."""

from collections.abc import Iterator
from dataclasses import dataclass

from lib.archive.entry import PARQUET, Entry, File, Skip, suffix_of
from lib.archive.listing import BucketListing, LocalListing
from lib.archive.selection import Selection
from lib.common.errors import UserError, reason_of
from lib.storage.uris import local_path, scheme_of


@dataclass(frozen=True)
class Selected:
    """A folder in object storage without what its place excludes."""

    listing: BucketListing
    selection: Selection

    @property
    def uri(self) -> str:
        """Of the folder."""
        return self.listing.uri

    def files(self, after: str | None = None) -> Iterator[File | Skip]:
        """The files of the listing; each that is passed over is a `Skip`.

        Args:
            after: uri of a file; only what comes behind it.

        Raises:
            UserError: the folder cannot be listed.
        """
        for found in self.listing.files(after):
            reason = self._why_skipped(found)
            yield Skip(reason) if reason else found

    def _why_skipped(self, found: File | Skip) -> str | None:
        if isinstance(found, Skip):
            # Whether it lies in the output of another run is not worth requests.
            return self.selection.why_skipped_by_name(found.uri)
        try:
            return self.selection.why_skipped(found.uri)
        except OSError as error:
            raise UserError(f"cannot list {self.uri!r}: {reason_of(error)}") from None


@dataclass(frozen=True)
class TableFolder:
    """A folder of Parquet files that is one table, as Spark, Ray and pandas write it."""

    listing: LocalListing | Selected

    @property
    def uri(self) -> str:
        """Of the folder, without a slash at the end."""
        listing = self.listing
        return (listing.root if isinstance(listing, LocalListing) else listing.uri).rstrip("/")

    @property
    def base(self) -> str:
        """The folder that it is in, to which names of images are relative."""
        return self.uri.rpartition("/")[0]

    def files(self, after: str | None = None) -> Iterator[File | Skip | Entry]:
        """The Parquet files by their names, also those of partitions (`year=2019/`).

        Args:
            after: uri of a file; only what comes behind it.

        Raises:
            UserError: the folder cannot be listed.
        """
        for found in self.listing.files(after):
            if isinstance(found, Skip):
                yield found
            elif not self._is_hidden(found.uri):
                yield found if suffix_of(found.uri) == PARQUET else Skip("other file type")

    def _is_hidden(self, uri: str) -> bool:
        """Whether readers of Parquet pass over the file: `.x`, `_x`, `_temporary/x`; not `_x=1/y`."""
        path = uri if scheme_of(uri) else str(local_path(uri))
        parts = path.removeprefix(self.uri).split("/")
        return any(
            part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts
        )
