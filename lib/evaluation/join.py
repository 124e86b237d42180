"""Which label row belongs to which row of the truth, by uri or by file name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib.common.errors import UserError

Key = Literal["uri", "file name"]


@dataclass(frozen=True)
class Join:
    """Pairs of rows, and what found no partner.

    Attributes:
        by: what both sides were compared by.
        truth: (m,) int64, row of the truth of each pair, ascending.
        labels: (m,) int64, row of the labels of each pair.
        truth_alone: paths of the truth without labels.
        labels_alone: uris of the labels without a truth.
    """

    by: Key
    truth: NDArray[np.int64]
    labels: NDArray[np.int64]
    truth_alone: Sequence[str]
    labels_alone: Sequence[str]

    def __str__(self) -> str:
        return (
            f"{len(self.truth):,} images matched by {self.by} · "
            f"{_some(self.truth_alone)} only in the truth · "
            f"{_some(self.labels_alone)} only in the labels"
        )


def join(paths: Sequence[str | None], uris: Sequence[str]) -> Join:
    """Pair the rows of the truth with label rows.

    By uri where at least one path is one, else by what stands behind the last slash of both.

    Args:
        paths: of the truth; None never matches.
        uris: of the labels.

    Raises:
        UserError: nothing matches, or a key that does is there several times on one side.
    """
    by: Key = "file name" if set(uris).isdisjoint(paths) else "uri"
    truth_keys = [_key(path or "", by) for path in paths]
    label_keys = [_key(uri, by) for uri in uris]
    common = (set(truth_keys) & set(label_keys)) - {""}
    if not common:
        raise UserError(
            f"no image of the labels is in the truth, neither by uri nor by file name: the labels "
            f"have {_first(uris)}, the truth {_first(paths)}"
        )
    _refuse_repeated(truth_keys, common, by, "truth")
    _refuse_repeated(label_keys, common, by, "labels")
    row_of = {key: row for row, key in enumerate(label_keys) if key in common}
    truth = [row for row, key in enumerate(truth_keys) if key in common]
    return Join(
        by=by,
        truth=np.array(truth, np.int64),
        labels=np.array([row_of[truth_keys[row]] for row in truth], np.int64),
        truth_alone=[
            path or "" for path, key in zip(paths, truth_keys, strict=True) if key not in common
        ],
        labels_alone=[uri for uri, key in zip(uris, label_keys, strict=True) if key not in common],
    )


def _key(path: str, by: Key) -> str:
    return path if by == "uri" else path.rpartition("/")[2]


def _refuse_repeated(keys: Sequence[str], common: set[str], by: Key, side: str) -> None:
    repeated = {k: times for k, times in Counter(keys).items() if times > 1 and k in common}
    if repeated:
        key, times = next(iter(repeated.items()))
        remedy = "; name the images by the uris of the labels" if by == "file name" else ""
        raise UserError(
            f"the {by} {key!r} is in the {side} {times} times ({len(repeated):,} repeat in all), so "
            f"that labels and truth cannot be matched{remedy}"
        )


def _some(names: Sequence[str]) -> str:
    return f"{len(names):,} (such as {names[0]!r})" if names else "0"


def _first(names: Sequence[str | None]) -> str:
    return repr(names[0]) if names else "none"
