import io
import pickle
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from lib.archive import tar
from lib.archive.tar import Member, TarError, buffered, iter_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "/".join(["a long folder name é"] * 12)


def add(archive: tarfile.TarFile, name: str, content: bytes, **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def packed(files: dict[str, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=layout) as archive:
        for name, content in files.items():
            add(archive, name, content)
    return file.getvalue()


def mixed(layout: int, seed: int = 0) -> bytes:
    """A tar with one of everything, and with contents that look like a tar or like a header."""
    rng = random.Random(seed)
    inner = packed({f"inner-{i}.jpg": rng.randbytes(700) for i in range(3)}, layout)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=layout) as archive:
        add(archive, "folder", b"", type=tarfile.DIRTYPE)
        add(archive, "folder/empty.jpg", b"")
        add(archive, "folder/one.jpg", rng.randbytes(1))
        add(archive, "evil.tar", inner)
        add(archive, "evil-cut.tar", inner[:-700])
        add(archive, "evil-header.jpg", inner[:512] + rng.randbytes(2000))
        add(archive, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="folder/one.jpg")
        add(archive, "hard.jpg", b"", type=tarfile.LNKTYPE, linkname="folder/one.jpg")
        if layout != tarfile.USTAR_FORMAT:
            add(archive, f"{LONG}.jpg", rng.randbytes(513))
            add(archive, "é.jpg", rng.randbytes(5), uname="ü", mtime=1.5)
            add(archive, f"{LONG}-link", b"", type=tarfile.SYMTYPE, linkname=f"{LONG}.jpg")
        add(archive, "/".join(["prefix"] * 20) + ".jpg", rng.randbytes(512))
        for i in range(4):
            add(archive, f"{i}.jpg", rng.randbytes(rng.randrange(3000)))
    return file.getvalue()


def by_tarfile(data: bytes) -> list[Member]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [Member(m.name, m.offset_data, m.size) for m in archive if m.isreg()]


@pytest.fixture
def near_sighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of a small tar begin to search behind its beginning, as those of a large one do."""
    monkeypatch.setattr(tar, "_LONGEST_EXTENSION", 2048)
    monkeypatch.setattr(tar, "_SCAN", 1024)


@pytest.mark.usefixtures("near_sighted")
@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
def test_every_split_gives_every_member_once(layout: int) -> None:
    data = mixed(layout)
    expected = by_tarfile(data)
    file = io.BytesIO(data)
    assert list(iter_members(file)) == expected
    blocks = range(0, len(data), 512)
    for split in sorted({*blocks, *(b + 1 for b in blocks), *(b - 1 for b in blocks[1:])}):
        assert [*iter_members(file, 0, split), *iter_members(file, split)] == expected, split


@pytest.mark.usefixtures("near_sighted")
@pytest.mark.parametrize("seed", range(20))
def test_random_splits(seed: int) -> None:
    rng = random.Random(seed)
    data = mixed(rng.choice(list(FORMATS.values())), seed)
    cuts = sorted(rng.choices(range(len(data)), k=rng.randrange(1, 12)))
    file = buffered(io.BytesIO(data))  # type: ignore[arg-type]
    ranges = zip([0, *cuts], [*cuts, None], strict=True)
    found = [member for start, end in ranges for member in iter_members(file, start, end)]
    assert found == by_tarfile(data)


def test_contents_between_members(tmp_path: Path) -> None:
    contents = {f"{i}.jpg": bytes([i]) * 1000 * i for i in range(5)}
    path = tmp_path / "images.tar"
    path.write_bytes(packed(contents))
    with pa.OSFile(str(path)) as native, buffered(native) as file:
        for member in iter_members(file):
            file.seek(member.offset)
            assert file.read(member.size) == contents.pop(member.name)
    assert not contents


class CountingFile(io.FileIO):
    """Counts what is asked of the disk, or would be of a bucket."""

    requests = 0
    fetched = 0

    def readinto(self, buffer: object) -> int:
        count = super().readinto(buffer)  # type: ignore[arg-type]
        self.requests += 1
        self.fetched += count
        return count


def test_a_range_is_fetched_in_chunks_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "CHUNK", 1 << 16)
    monkeypatch.setattr(tar, "_TRUST", 1 << 16)
    monkeypatch.setattr(tar, "_LONGEST_EXTENSION", 1 << 14)
    monkeypatch.setattr(tar, "_SCAN", 1 << 14)
    path = tmp_path / "images.tar"
    path.write_bytes(packed({f"{i}.jpg": bytes(3000) for i in range(1000)}))
    disk = CountingFile(path)
    with buffered(disk) as file:
        for member in iter_members(file, 1 << 20, 2 << 20):
            file.seek(member.offset)
            file.read(member.size)
    assert disk.requests < 24
    assert disk.fetched < (1 << 20) + 5 * (1 << 16)


def gnu_binary_size(size: int) -> bytes:
    return b"\x80" + size.to_bytes(11, "big")


def resized(data: bytes, size_field: bytes) -> bytes:
    """Replace the size in the first header."""
    header = bytearray(data[:512])
    header[124:136] = size_field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def test_binary_sizes() -> None:
    data = resized(packed({"a.jpg": b"abc"}, tarfile.GNU_FORMAT), gnu_binary_size(3))
    assert list(iter_members(io.BytesIO(data))) == [Member("a.jpg", 512, 3)] == by_tarfile(data)


def test_pax_size_counts() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "a.jpg", b"abc", pax_headers={"size": "3"})
        add(archive, "b.jpg", b"d")
    data = file.getvalue()
    data = data[:1024] + resized(data[1024:], b"%011o\0" % 0)
    assert list(iter_members(io.BytesIO(data))) == by_tarfile(data)
    assert [member.size for member in by_tarfile(data)] == [3, 1]


@pytest.mark.parametrize("first", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_of_two_long_names_that_counts_which_counts_for_tarfile(first: bytes) -> None:
    names = {tarfile.XHDTYPE: b"14 path=x.jpg\n", tarfile.GNUTYPE_LONGNAME: b"l.jpg\0"}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for kind in sorted(names, key=lambda kind: kind != first):
            add(archive, "extended", names[kind], type=kind)
        add(archive, "short.jpg", b"a")
    data = file.getvalue()
    assert list(iter_members(io.BytesIO(data))) == by_tarfile(data)


def test_old_tars_sum_signed_bytes() -> None:
    data = bytearray(packed({"é.jpg": b"abc"}, tarfile.USTAR_FORMAT))
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in data[:512])
    assert [member.name for member in iter_members(io.BytesIO(data))] == ["é.jpg"]


def test_names_are_valid_unicode() -> None:
    data = packed({"x.jpg": b""}, tarfile.GNU_FORMAT)
    data = resized(b"\xff.jpg" + data[5:], b"%011o\0" % 0)
    (member,) = iter_members(io.BytesIO(data))
    assert member.name == "\ufffd.jpg"
    pa.array([member.name])


def drain(members: Iterator[Member]) -> tuple[list[str], TarError | None]:
    names = []
    try:
        for member in members:
            names.append(member.name)
    except TarError as error:
        return names, error
    return names, None


FILES = {"a.jpg": b"a" * 600, "b.jpg": b"b" * 600, "c.jpg": b"c" * 600}
SOUND = packed(FILES, tarfile.GNU_FORMAT)  # headers at 0, 1536, 3072; the end mark at 4608


def damaged(offset: int) -> bytes:
    return SOUND[:offset] + b"\xaa" + SOUND[offset + 1 :]


@pytest.mark.parametrize(
    ("data", "names", "offset", "reason"),
    [
        (b"", [], 0, "end mark"),
        (b"not a tar" * 100, [], 0, "no header"),
        (SOUND[:300], [], 0, "cut off inside a header"),
        (SOUND[:700], [], 0, "a.jpg is cut off"),
        (SOUND[:1536], ["a.jpg"], 1536, "without an end mark"),
        (SOUND[:1700], ["a.jpg"], 1536, "inside a header"),
        (SOUND[: 3072 + 512 + 599], ["a.jpg", "b.jpg"], 3072, "c.jpg is cut off"),
        (SOUND[: 3072 + 512 + 600], ["a.jpg", "b.jpg", "c.jpg"], 4608, "without an end mark"),
        (SOUND[:4608], ["a.jpg", "b.jpg", "c.jpg"], 4608, "without an end mark"),
        (damaged(1540), ["a.jpg"], 1536, "bad checksum"),
        (damaged(1536 + 130), ["a.jpg"], 1536, "bad checksum"),
        (damaged(1536 + 258), ["a.jpg"], 1536, "no header"),
        (SOUND + SOUND, ["a.jpg", "b.jpg", "c.jpg"], 4608, "are these several tars"),
    ],
)
@pytest.mark.parametrize("has_end", [False, True])
@pytest.mark.usefixtures("near_sighted")
def test_what_is_before_the_damage_comes_then_the_error(
    data: bytes, names: list[str], offset: int, reason: str, has_end: bool
) -> None:
    found, error = drain(iter_members(io.BytesIO(data), 0, len(data) if has_end else None))
    assert found == names
    assert error is not None
    assert error.offset == offset
    assert reason in str(error)
    assert "\n" not in str(error)


def test_the_error_travels_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(TarError("there is no header", 512)))
    assert copy.offset == 512
    assert str(copy) == "the tar cannot be read from byte 512: there is no header"


@pytest.mark.usefixtures("near_sighted")
def test_a_range_behind_which_the_archive_is_cut_off_is_whole() -> None:
    data = packed({f"{i}.jpg": bytes(600) for i in range(10)}, tarfile.GNU_FORMAT)[:14_000]
    assert drain(iter_members(io.BytesIO(data), 6000, 9000)) == (["4.jpg", "5.jpg"], None)
    names, error = drain(iter_members(io.BytesIO(data), 9000))
    assert names == ["6.jpg", "7.jpg", "8.jpg"]
    assert error is not None


@pytest.mark.usefixtures("near_sighted")
@pytest.mark.parametrize(
    "fields",
    [{"type": tarfile.GNUTYPE_SPARSE}, {"pax_headers": {"GNU.sparse.major": "1"}}],
    ids=["gnu", "pax"],
)
def test_a_sparse_file_is_refused(fields: dict[str, object]) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "a.jpg", b"a")
        add(archive, "b.jpg", b"", **fields)
    names, error = drain(iter_members(io.BytesIO(file.getvalue())))
    assert names == ["a.jpg"]
    assert "sparse" in str(error)


@pytest.mark.parametrize(
    "records", [b"nonsense\n", b"9 path=a\n\n", b"0 path=a\n", b"-5 =\n", b"99 path=a\n", b"5 a\n"]
)
def test_a_broken_pax_header_is_an_error_and_ends(records: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        add(archive, "pax", records, type=tarfile.XHDTYPE)
        add(archive, "a.jpg", b"a")
    _, error = drain(iter_members(io.BytesIO(file.getvalue())))
    assert "PAX" in str(error)


@pytest.mark.usefixtures("near_sighted")
def test_a_tar_inside_that_is_longer_than_what_is_checked_is_not_passed_over_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tar, "_TRUST", 4096)
    inner = packed({f"inner-{i}.jpg": bytes(700) for i in range(20)})
    data = packed({"evil.tar": inner, "a.jpg": b"a"})
    _, error = drain(iter_members(io.BytesIO(data), 4096))
    assert "several tars" in str(error)


@pytest.mark.data
@pytest.mark.parametrize("count", [1, 5])
def test_the_shared_tars(shared_data: Path, count: int) -> None:
    path = shared_data / "utkface" / "utkface-00.tar"
    size = path.stat().st_size
    cuts = [size * i // count for i in range(count)] + [size]
    with path.open("rb", buffering=0) as raw, buffered(raw) as file:
        found = [m for i in range(count) for m in iter_members(file, cuts[i], cuts[i + 1])]
    assert found == by_tarfile(path.read_bytes())
