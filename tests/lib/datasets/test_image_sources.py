import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from lib.common.errors import UserError
from lib.datasets import image_sources
from lib.datasets.image_sources import common_prefix, open_sources
from lib.datasets.path_index import PathIndex
from lib.storage.errors import FetchError

CONTENT = {f"{i % 7:02}/{i}.jpg": bytes([i % 256]) * (i * 37 % 5000) for i in range(300)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The content three times: as a folder, as a tar, and the tar cut off."""
    for name, content in CONTENT.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "images" / "README.txt").write_text("no image")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(tmp_path / "images", "images")
    whole = (tmp_path / "images.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def content_of(source: str) -> list[tuple[str, bytes]]:
    (opened,) = open_sources([source])
    shards = [pickle.loads(pickle.dumps(shard)) for shard in opened.shards()]
    assert len({shard.digest for shard in shards}) == len(shards) > 1
    return [(found.name, found.read(1 << 20)) for shard in shards for found in shard]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(image_sources, "SHARD_FILES", 100)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(("name", "prefix"), [("images", ""), ("images.tar", "images/")])
def test_shards_together_are_the_source(folder: Path, name: str, prefix: str) -> None:
    expected = {prefix + name: content for name, content in CONTENT.items()}
    found = content_of(str(folder / name))
    assert len(found) == len(expected)
    assert dict(found) == expected
    (opened,) = open_sources([str(folder / name)])
    assert list(opened.names()) == [name for name, _ in found]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("name", ["images/00/7.jpg", "images.tar"])
def test_a_changed_source_has_other_shard_digests(folder: Path, name: str) -> None:
    source = str(folder / name.split("/")[0])
    (before,) = ([shard.digest for shard in s.shards()] for s in open_sources([source]))
    with (folder / name).open("ab") as file:
        file.write(bytes(10240))
    (after,) = ([shard.digest for shard in s.shards()] for s in open_sources([source]))
    assert before != after


def test_of_a_damaged_tar_the_names_before_the_damage(folder: Path) -> None:
    (cut,) = open_sources([str(folder / "cut.tar")])
    assert 50 < len(list(cut.names())) < 250


@pytest.mark.usefixtures("small_shards")
def test_every_type_of_member_is_read_or_says_why_not(folder: Path) -> None:
    """Hard links have the content of members of earlier shards."""
    with tarfile.open(folder / "images.tar", "a") as tar:
        for name, type_, target in [
            ("hard.jpg", tarfile.LNKTYPE, "images/01/50.jpg"),
            ("hard-to-nothing.jpg", tarfile.LNKTYPE, "nothing"),
            ("symbolic.jpg", tarfile.SYMTYPE, "images/01/50.jpg"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type_, target
            tar.addfile(info)
    (source,) = open_sources([str(folder / "images.tar")])
    found = {}
    for shard in source.shards():
        for image in shard:
            if "/" not in image.name:
                try:
                    found[image.name] = image.read(10_000)
                except FetchError as error:
                    found[image.name] = str(error).encode()
    assert list(source.names())[-3:] == list(found)
    assert found["hard.jpg"] == CONTENT["01/50.jpg"]
    assert found["hard-to-nothing.jpg"].startswith(b"a hard link to 'nothing', which is not")
    assert found["symbolic.jpg"] == b"a symbolic link in the tar, which has no content"


def test_a_single_file_has_its_bare_name(folder: Path) -> None:
    (source,) = open_sources([str(folder / "images" / "00" / "7.jpg")])
    assert list(source.names()) == ["7.jpg"]


def test_a_source_given_twice_is_read_once(folder: Path) -> None:
    tar = str(folder / "images.tar")
    assert list(map(str, open_sources([tar, tar]))) == [tar]


@pytest.mark.parametrize("name", ["images", "images.tar"])
def test_images_above_the_limit_are_not_read(folder: Path, name: str) -> None:
    (source,) = open_sources([str(folder / name)])
    largest = max(map(len, CONTENT.values()))
    for shard in source.shards():
        for found in shard:
            if len(CONTENT[found.name.removeprefix("images/")]) == largest:
                with pytest.raises(FetchError, match="the limit is") as error:
                    found.read(largest - 1)
                assert error.value.status == "too_large"
            else:
                found.read(largest - 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.tar", "cannot read .*no.tar': No such file"),
        ("images.tgz", "compressed"),
        ("no", "no such folder or file"),
        ("README.txt", "no such folder or file"),
    ],
)
def test_sources_that_cannot_be_read(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_sources([str(folder / name)])


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["01/a.jpg", "02/b.jpg"], ""),
        (["imdb_crop/01/a.jpg", "imdb_crop/02/b.jpg"], "imdb_crop/"),
        (["./x/01/a.jpg", "./x/02/b.jpg"], "./x/"),
        (["other.jpg", "x/c.jpg", "x/01/a.jpg", "x/02/b.jpg"], "x/"),
        (["y/c.jpg", "x/01/a.jpg", "x/02/b.jpg"], "x/"),
        (["1/a.jpg", "x01/a.jpg"], None),
        ([], None),
    ],
)
def test_common_prefix(names: list[str], prefix: str | None) -> None:
    index = PathIndex(pa.chunked_array([["01/a.jpg", "02/b.jpg", "c.jpg"]]))
    assert common_prefix(names, index) == prefix


def test_a_damaged_first_byte_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    (source,) = open_sources([str(tmp_path / "a.tar")])
    with pytest.raises(UserError, match=r"a\.tar: the tar cannot be read from byte 0"):
        list(source.names())
