"""The manifest: the list of images to label, in Parquet files.

    manifest/part-GGG-NNNNN.parquet    rows of `SCHEMA` and the carried columns
    manifest/_summary.json             names the valid parts; written last
    manifest/_listing.json             position of an unfinished listing

A killed listing continues behind its last part. A later listing (`update`) writes its own parts, with
number GGG, beside the valid ones, until its summary replaces theirs.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lib.archive.archive import Archive, Position
from lib.archive.entry import TAR, Entry, File, suffix_of
from lib.common.errors import UserError
from lib.storage.folder import Folder

PART_ROWS = 100_000
GROUP_ROWS = 10_000
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("container", pa.string()),
        ("offset", pa.int64()),
        ("fault", pa.string()),
    ]
)
"""`lib.archive.entry.Entry` explains the columns."""

_SUMMARY, _LISTING = "_summary.json", "_listing.json"  # readers of Parquet ignore names with _


@dataclass(frozen=True)
class Manifest:
    """The summary of a manifest.

    Attributes:
        images: Its rows.
        bytes: The sum of their sizes, where those are known.
        skipped: Number of skipped files by reason, as in `Archive.skipped`.
        digest: SHA-256, in hexadecimal, of every row's uri, size and etag in order.
        parts: Names of its files.
        next_id: Greater than all ids so far.
        generation: Number of earlier listings.
    """

    images: int
    bytes: int
    skipped: dict[str, int]
    digest: str
    parts: tuple[str, ...]
    next_id: int
    generation: int = 0

    def ids(self, folder: Folder) -> NDArray[np.bool_]:
        """Which numbers are ids of images, (next_id,)."""
        if self.images == self.next_id:
            return np.ones(self.next_id, np.bool_)
        there = np.zeros(self.next_id, np.bool_)
        for part in self.parts:
            there[folder.read_table(part, ["id"])["id"].to_numpy()] = True
        return there

    def declare(self, folder: Folder) -> None:
        """Write the summary, which makes the parts valid; `read_manifest` reads it."""
        folder.write(_SUMMARY, json.dumps(dataclasses.asdict(self)).encode())


@dataclass
class _Writer:
    """Writes parts, and collects their summary."""

    folder: Folder
    schema: pa.Schema
    generation: int = 0
    images: int = 0
    bytes: int = 0
    parts: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)

    def write(self, ids: Sequence[int] | range, entries: Sequence[Entry]) -> None:
        """Write one part."""
        name = f"part-{self.generation:03}-{len(self.parts):05}.parquet"
        self.folder.write_table(name, _table(ids, entries, self.schema), GROUP_ROWS)
        # Names have no NUL, so different rows give different bytes.
        text = "".join(f"{e.uri}\0{e.size}\0{e.etag}\0" for e in entries)
        self.digests.append(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest())
        self.parts.append(name)
        self.images += len(entries)
        self.bytes += sum(entry.size or 0 for entry in entries)

    def finish(self, skipped: dict[str, int], next_id: int) -> Manifest:
        """Write the summary of the parts."""
        digest = hashlib.sha256("".join(self.digests).encode()).hexdigest()
        manifest = Manifest(
            self.images, self.bytes, skipped, digest, tuple(self.parts), next_id, self.generation
        )
        manifest.declare(self.folder)
        return manifest


def write_manifest(archive: Archive, folder: Folder) -> Manifest:
    """List the archive; `id` counts from 0. No more than `PART_ROWS` rows are in memory.

    A stopped listing continues behind its last part.

    Raises:
        UserError: The archive holds no image, or cannot be listed.
    """
    state = _unfinished(folder)
    writer = _Writer(folder, _schema(archive), **state["written"])
    archive.skipped.update(state["skipped"])
    position = Position(*state["position"])
    entries = iter(archive) if position == Position() else archive.behind(position, writer.images)
    for part in _parts(entries):
        writer.write(range(writer.images, writer.images + len(part)), part)
        _remember(folder, writer, archive)
    manifest = writer.finish(dict(archive.skipped), writer.images)
    folder.delete(_LISTING)
    return manifest


def _unfinished(folder: Folder) -> dict[str, Any]:
    try:
        return json.loads(folder.read(_LISTING))
    except FileNotFoundError:
        return {"written": {}, "skipped": {}, "position": Position()}


def _remember(folder: Folder, writer: _Writer, archive: Archive) -> None:
    written = {name: getattr(writer, name) for name in ("images", "bytes", "parts", "digests")}
    state = {"written": written, "skipped": archive.skipped, "position": archive.position}
    folder.write(_LISTING, json.dumps(state).encode())


def read_manifest(folder: Folder) -> Manifest:
    """Read the summary of a manifest.

    Raises:
        FileNotFoundError: There is no complete manifest.
    """
    found = json.loads(folder.read(_SUMMARY))
    return Manifest(**{**found, "parts": tuple(found["parts"])})


@dataclass(frozen=True)
class Update:
    """The result of a new listing.

    Attributes:
        new: number of new images.
        changed: ids of images with another size or etag.
        vanished: ids of images that do not exist any more.
        pruned: whether the new manifest omits those.
    """

    new: int
    changed: NDArray[np.int64]
    vanished: NDArray[np.int64]
    pruned: bool
    _writer: _Writer
    _skipped: dict[str, int]
    _next_id: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.new or len(self.changed) or (self.pruned and len(self.vanished)))

    @property
    def to_forget(self) -> NDArray[np.int64]:
        """Ids whose labels must be deleted before `finish`."""
        return np.concatenate([self.changed, self.vanished]) if self.pruned else self.changed

    def finish(self, old: Manifest) -> Manifest:
        """Make the new manifest valid, or delete it if nothing has changed."""
        folder = self._writer.folder
        if self.is_empty:
            superseded, manifest = self._writer.parts, old
        else:
            superseded = list(old.parts)
            manifest = self._writer.finish(self._skipped, self._next_id)
        for part in superseded:
            folder.delete(part)
        return manifest


def update(archive: Archive, folder: Folder, old: Manifest, prune: bool) -> Update:
    """List the archive again and compare.

    Images keep their ids. Rows of a table with the same uri are distinguished by their order. A tar with
    the same etag is not read again, and its skipped files are not counted again.

    Args:
        archive: the same sources.
        folder: of the manifest.
        old: the valid manifest.
        prune: omit images that do not exist any more.

    Raises:
        UserError: The archive holds no image, or cannot be listed.
    """
    known = _known(folder, old)
    archive.known = _ListedTars(folder, old)
    writer = _Writer(folder, _schema(archive), old.generation + 1)
    seen: dict[bytes, int] = {}
    changed = []
    next_id = old.next_id
    for part in _parts(iter(archive)):
        ids = []
        for entry in part:
            key = _uri_key(entry.uri, seen)
            if (before := known.pop(key, None)) is None:
                ids.append(next_id)
                next_id += 1
                continue
            id_, version = before
            ids.append(id_)
            if version != _version(entry.size, entry.etag, entry.fault):
                changed.append(id_)
        writer.write(ids, part)
    vanished = np.sort(np.array([id_ for id_, _ in known.values()], np.int64))
    if not prune:
        for kept, entries in _kept(folder, old, vanished):
            writer.write(kept, entries)
    return Update(
        next_id - old.next_id, np.array(changed, np.int64), vanished, prune, writer,
        dict(archive.skipped), next_id,
    )  # fmt: skip


class _ListedTars:
    """The images of tars in a manifest."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder = folder
        self._parts: dict[str, list[str]] = {}
        self._etags: dict[str, set[str | None]] = {}
        self._last: tuple[str, pa.Table] | None = None
        for part in manifest.parts:
            rows = folder.read_table(part, ["container", "etag", "fault"])
            for row in rows.group_by(rows.column_names).aggregate([]).to_pylist():
                tar, fault = row["container"], row["fault"]
                if tar is None or suffix_of(tar) != TAR:
                    continue
                self._parts.setdefault(tar, []).append(part)
                # A tar that could not be read is read again.
                passing = fault is not None and not fault.startswith("decode_error")
                self._etags.setdefault(tar, set()).add(None if passing else row["etag"])

    def __call__(self, tar: File) -> list[Entry] | None:
        """The images of a tar; None if it is unknown or has changed."""
        if not tar.etag or self._etags.get(tar.uri) != {tar.etag}:
            return None
        return [
            Entry(**row)
            for part in dict.fromkeys(self._parts[tar.uri])
            for row in self._of(tar.uri, part).select(SCHEMA.names[1:]).to_pylist()
        ]

    def _of(self, tar: str, part: str) -> pa.Table:
        if self._last is None or self._last[0] != part:
            self._last = part, self._folder.read_table(part)
        rows = self._last[1]
        return rows.filter(pc.equal(rows["container"], tar))


def _known(folder: Folder, manifest: Manifest) -> dict[bytes, tuple[int, bytes]]:
    """The id and version of each image by its key; about 200 bytes of memory each."""
    known = {}
    seen: dict[bytes, int] = {}
    columns = ["id", "uri", "size", "etag", "fault"]
    for part in manifest.parts:
        table = folder.read_table(part, columns)
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        for id_, uri, size, etag, fault in rows:
            known[_uri_key(uri, seen)] = id_, _version(size, etag, fault)
    return known


def _uri_key(uri: str, seen: dict[bytes, int]) -> bytes:
    key = hashlib.blake2b(uri.encode(), digest_size=16).digest()
    times = seen[key] = seen.get(key, -1) + 1
    return key if times == 0 else key + times.to_bytes(8, "big")


def _version(size: int | None, etag: str | None, fault: str | None) -> bytes:
    return hashlib.blake2b(f"{size}\0{etag}\0{fault}".encode(), digest_size=8).digest()


def _kept(
    folder: Folder, manifest: Manifest, ids: NDArray[np.int64]
) -> Iterator[tuple[list[int], list[Entry]]]:
    names = [name for name in SCHEMA.names if name != "id"]
    for part in manifest.parts:
        rows = folder.read_table(part)
        rows = rows.filter(pa.array(np.isin(rows["id"].to_numpy(), ids)))
        if len(rows):
            extra = [name for name in rows.column_names if name not in SCHEMA.names]
            entries = [
                Entry(**{n: row[n] for n in names}, extra=tuple(row[n] for n in extra))
                for row in rows.to_pylist()
            ]
            yield rows["id"].to_pylist(), entries


def _schema(archive: Archive) -> pa.Schema:
    return pa.schema([*SCHEMA, *archive.carried()])


def _table(ids: Sequence[int] | range, entries: Sequence[Entry], schema: pa.Schema) -> pa.Table:
    extra = schema.names[len(SCHEMA) :]
    columns: dict[str, Any] = {"id": ids}
    for place, name in enumerate(SCHEMA.names[1:]):
        columns[name] = [entry[place] for entry in entries]
    for place, name in enumerate(extra):
        columns[name] = [entry.extra[place] if entry.extra else None for entry in entries]
    try:
        return pa.table(columns, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(
            f"--carry {' '.join(extra)}: the tables disagree on the types: {str(error).splitlines()[0]}"
        ) from None


def _parts(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while part := list(islice(rest, PART_ROWS)):
        yield part
