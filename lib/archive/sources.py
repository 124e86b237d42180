"""Sources: folders, single files, and those that refine a listing of a folder."""

# ruff: noqa: PTH100, PTH110, PTH112, PTH118 - as in lib/archive/listing.py

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard
from urllib.parse import urlsplit

from lib.archive.entry import PARQUET, SUFFIXES, TABLES, TAR, Entry, File, Skip, suffix_of
from lib.archive.listing import BucketListing, LocalListing
from lib.archive.selection import Selection
from lib.common.errors import UserError, reason_of
from lib.storage.uris import local_path, scheme_of

FILES = (*SUFFIXES, TAR, *TABLES)
"""Endings of single files that are sources."""


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


@dataclass(frozen=True)
class SingleFile:
    """A source that is a single file."""

    file: File | Entry

    def files(self, after: str | None = None) -> Iterator[File | Entry]:
        """The file, unless it is already listed."""
        if after is None:
            yield self.file


Listing = LocalListing | Selected | TableFolder | SingleFile
"""A source; `files()` gives what is in it."""


def outermost(listings: list[Listing]) -> list[Listing]:
    """The sources without those that repeat another one or lie within it; named tables stay.

    A folder takes lists of names within it for other files: only who names one wants its images, too.
    """
    places: dict[str, Listing] = {}
    for listing in listings:
        places.setdefault(place_of(listing), listing)
    folders = [place for place, found in places.items() if not isinstance(found, SingleFile)]
    return [
        listing
        for place, listing in places.items()
        if is_table(listing)
        or not any(place != f and place.startswith(f"{f.rstrip('/')}/") for f in folders)
    ]


def is_table(listing: Listing) -> TypeGuard[SingleFile]:
    """Whether a source is a single table."""
    return isinstance(listing, SingleFile) and suffix_of(listing.file.uri) in TABLES


def place_of(listing: Listing) -> str:
    """Where a source is, the same for all names that lead there."""
    if isinstance(listing, LocalListing):
        return os.path.realpath(listing.root)
    if isinstance(listing, Selected | TableFolder):
        return listing.uri if scheme_of(listing.uri) else os.path.realpath(listing.uri)
    uri = listing.file.uri
    if scheme_of(uri):
        return uri
    # A link to a file is listed by its own name, so only its folder is resolved.
    folder, name = os.path.split(local_path(uri))
    return os.path.join(os.path.realpath(folder), name)


def folder_of(listing: Listing) -> str:
    """Path or URI of a source that is a folder; of a file its folder's."""
    if isinstance(listing, LocalListing):
        return listing.root
    if isinstance(listing, SingleFile):
        return listing.file.uri.rpartition("/")[0]
    return listing.uri


def open_url(source: str) -> SingleFile:
    """The source at a URL.

    Raises:
        UserError: it is a tar or a table.
    """
    if suffix_of(urlsplit(source).path) in (TAR, *TABLES):
        raise UserError(
            f"{source!r}: only single images are read from URLs; copy it to a folder or a bucket"
        )
    return SingleFile(Entry(source, None, None))


def checked_path(source: str) -> str:
    """The absolute path of a local source.

    Raises:
        UserError: it is missing, cannot be read, or is of a kind that is not supported.
    """
    path = os.path.abspath(local_path(source))
    if not os.path.exists(path):
        raise UserError(f"no such folder or file: {source!r}; check the spelling of the path")
    is_folder = os.path.isdir(path)
    if not is_folder and suffix_of(path) not in FILES:
        raise UserError(
            f"{source!r} is no source of images: give a folder, or a file that ends in "
            f"{', '.join(FILES)}"
        )
    if not os.access(path, os.R_OK | os.X_OK if is_folder else os.R_OK, effective_ids=True):
        raise UserError(f"no permission to read {source!r}; check its owner and mode")
    return path
