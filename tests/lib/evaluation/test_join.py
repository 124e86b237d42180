import pytest

from lib.common.errors import UserError
from lib.evaluation.join import join


@pytest.mark.parametrize(
    ("paths", "uris", "by", "pairs"),
    [
        (["/a/1.jpg", "/a/2.jpg"], ["/a/2.jpg", "/a/1.jpg"], "uri", [(0, 1), (1, 0)]),
        (["1.jpg", "x/2.jpg"], ["/a/2.jpg", "/b/1.jpg"], "file name", [(0, 1), (1, 0)]),
        (["/a/1.jpg", "2.jpg"], ["/a/1.jpg", "/a/2.jpg"], "uri", [(0, 0)]),
        ([None, "", "1.jpg"], ["/a/", "/a/1.jpg"], "file name", [(2, 1)]),
        (["1.jpg"], ["/a/1.jpg", "/a/2.jpg", "/b/2.jpg"], "file name", [(0, 0)]),
        (["/a/1.jpg"], ["/a/1.jpg", "/b/1.jpg"], "uri", [(0, 0)]),
    ],
    ids=["uri", "name", "a uri decides", "no path", "unused names repeat", "names repeat"],
)
def test_pairs(
    paths: list[str | None], uris: list[str], by: str, pairs: list[tuple[int, int]]
) -> None:
    joined = join(paths, uris)
    assert joined.by == by
    assert list(zip(joined.truth, joined.labels, strict=True)) == pairs
    assert len(joined.truth) + len(joined.truth_alone) == len(paths)
    assert len(joined.labels) + len(joined.labels_alone) == len(uris)


@pytest.mark.parametrize(
    ("paths", "uris", "message"),
    [
        (["1.jpg"], ["/a/2.jpg"], "the labels have '/a/2.jpg', the truth '1.jpg'"),
        ([], ["/a/2.jpg"], "the labels have '/a/2.jpg', the truth none"),
        (["1.jpg"], [], "the labels have none, the truth '1.jpg'"),
        (["1.jpg"], ["/a/1.jpg", "/b/1.jpg"], "file name '1.jpg' is in the labels 2 times"),
        (["a/1.jpg", "b/1.jpg"], ["/c/1.jpg"], "file name '1.jpg' is in the truth 2 times"),
        (["/a/1.jpg"] * 3, ["/a/1.jpg"], "uri '/a/1.jpg' is in the truth 3 times"),
    ],
)
def test_what_cannot_be_told_is_refused(
    paths: list[str | None], uris: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        join(paths, uris)
    assert "\n" not in str(refusal.value)


def test_what_found_no_partner_is_told() -> None:
    joined = join(["1.jpg", "3.jpg"], ["/a/1.jpg"])
    assert str(joined) == (
        "1 images matched by file name · 1 (such as '3.jpg') only in the truth · 0 only in the labels"
    )
