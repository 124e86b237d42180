"""The split of an image by its place: below `train/`, or in a shard `train-00000-of-00002.parquet`."""

import re

from lib.archive.entry import TABLES_OF_IMAGES, TAR, suffix_of
from lib.storage.uris import local_path, scheme_of

SPLIT = "split"
"""What `--carry` calls it, where no column of a table has this name."""
_NAME = r"train|test|val|valid|validation|dev"
_FOLDER = re.compile(_NAME, re.I)
_SHARD = re.compile(rf"({_NAME})(?=[-_.])", re.I)


def split_of(uri: str, source: str) -> str | None:
    """The split that a place names, in lower case; None where it names none.

    Args:
        uri: of an image, a tar or a table.
        source: path or URI of the folder in which it was found; its last part counts, too.
    """
    below = _path(uri).removeprefix(_path(source).rstrip("/").rpartition("/")[0])
    parts = re.split("[/#]", below)
    folders = (part for part in parts[:-1] if _FOLDER.fullmatch(part))
    shards = (_SHARD.match(part) for part in parts if suffix_of(part) in (TAR, *TABLES_OF_IMAGES))
    names = (*folders, *(shard[1] for shard in shards if shard))
    return names[0].lower() if names else None


def _path(place: str) -> str:
    return place if scheme_of(place) else str(local_path(place))
