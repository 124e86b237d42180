"""Parts of a listing that are there, and parts that threads are still listing."""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

from lib.archive.entry import Entry, Skip
from lib.archive.tar_ranges import Found


class Listed(NamedTuple):
    """An image or a skipped file, the file that holds it, and its place there; None: the whole file."""

    file: str
    place: int | None
    found: Entry | Skip


class Pending(NamedTuple):
    """The members of a range of a tar, which a thread is listing."""

    tar: str
    members: Future[list[Found]]


def wait_for(item: Listed | Pending, part: str | None, place: int) -> Iterator[Listed]:
    """The item, or the members of a range as soon as it is listed, without those listed before.

    Args:
        item: what to wait for.
        part: uri of a file that was listed in part before; None: none was.
        place: up to where.
    """
    if isinstance(item, Listed):
        yield item
        return
    for at, found in item.members.result():
        if item.tar != part or at > place:
            yield Listed(item.tar, at, found)
