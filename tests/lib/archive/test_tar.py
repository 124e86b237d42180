import bz2
import gzip
import io
import lzma
import pickle
import random
import tarfile
from collections.abc import Callable, Iterator
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


LINKS = {tarfile.LNKTYPE: "hard link", tarfile.SYMTYPE: "symbolic link"}


def by_tarfile(data: bytes) -> list[Member]:
    """Its regular files, and its links."""

    def member(info: tarfile.TarInfo) -> Member:
        kind = LINKS.get(info.type, "file")
        target = info.linkname if info.islnk() else ""
        return Member(info.name, info.offset_data, info.size, kind, target)

    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [member(m) for m in archive if m.isreg() or m.type in LINKS]


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


def as_v7(data: bytes) -> bytes:
    """The same tar as programs before POSIX wrote it: nothing behind the name of the link."""
    blocks = bytearray(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            header = blocks[info.offset : info.offset + 512]
            header[257:512] = bytes(255)
            if info.isreg():
                header[156] = 0
            header[148:156] = b" " * 8
            header[148:156] = b"%6o\0 " % sum(header)
            blocks[info.offset : info.offset + 512] = header
    return bytes(blocks)


@pytest.mark.usefixtures("near_sighted")
@pytest.mark.parametrize("appended", [False, True], ids=["v7", "v7 behind ustar"])
def test_v7_tars_have_no_magic(appended: bool) -> None:
    modern = packed({f"{i}.png": bytes([i]) * 300 * i for i in range(9)}, tarfile.USTAR_FORMAT)
    end = modern.index(b"8.png") + 512 + 2560
    old = as_v7(packed({f"{i}.jpg": bytes([i]) * 300 * i for i in range(9)}, tarfile.GNU_FORMAT))
    data = modern[:end] + old if appended else old
    expected = by_tarfile(data)
    assert len(expected) == (18 if appended else 9)
    for split in range(0, len(data), 512):
        file = io.BytesIO(data)
        assert [*iter_members(file, 0, split), *iter_members(file, split)] == expected, split


def test_a_v7_header_with_a_wrong_checksum_is_damage() -> None:
    data = bytearray(as_v7(packed({"a.jpg": b"a", "b.jpg": b"b"}, tarfile.GNU_FORMAT)))
    data[1024] ^= 1
    names, error = drain(iter_members(io.BytesIO(bytes(data))))
    assert names == ["a.jpg"]
    assert error is not None
    assert error.offset == 1024


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


def sparse_map(runs: int) -> list[tuple[int, int]]:
    """Places and sizes of the runs of data of a sparse file."""
    return [(4096 * run, 512) for run in range(runs)]


def gnu_sparse(runs: int) -> bytes:
    """A sparse member as GNU tar writes it: four runs in the header, 21 in each block behind it."""
    fields = [b"%011o\0%011o\0" % run for run in sparse_map(runs)]
    info = tarfile.TarInfo("s.jpg")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512 * runs
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:482] = b"".join(fields[:4]).ljust(96, b"\0")
    header[482] = len(fields) > 4
    header[483:495] = b"%011o\0" % (4096 * runs)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [fields[place : place + 21] for place in range(4, len(fields), 21)]
    more = [
        b"".join(block).ljust(504, b"\0") + bytes([block is not blocks[-1]]) + bytes(7)
        for block in blocks
    ]
    return bytes(header) + b"".join(more) + b"d" * info.size


def pax_sparse(version: str, runs: int) -> bytes:
    """A sparse member of PAX: the map in the extended header, or (1.0) before the data."""
    numbers = [str(number) for run in sparse_map(runs) for number in run]
    data = b"d" * 512 * runs
    headers = {"GNU.sparse.name": "s.jpg", "GNU.sparse.realsize": str(4096 * runs)}
    if version == "0.0":
        headers = {"GNU.sparse.size": str(4096 * runs), "GNU.sparse.numblocks": str(runs)}
    elif version == "0.1":
        headers |= {"GNU.sparse.map": ",".join(numbers), "GNU.sparse.numblocks": str(runs)}
    else:
        headers |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        text = "".join(f"{number}\n" for number in (runs, *numbers)).encode()
        data = text.ljust(-(-len(text) // 512) * 512, b"\0") + data
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        name = "s.jpg" if version == "0.0" else "GNUSparseFile.7/s.jpg"
        add(archive, name, data, pax_headers=headers)
        end = archive.offset
    return file.getvalue()[:end]


SPARSE = {
    "gnu": gnu_sparse(3),
    "gnu with one more block": gnu_sparse(5),
    "gnu with three more blocks": gnu_sparse(60),
    **{f"pax {version}": pax_sparse(version, 60) for version in ("0.0", "0.1", "1.0")},
}


@pytest.mark.usefixtures("near_sighted")
@pytest.mark.parametrize("sparse", SPARSE.values(), ids=SPARSE)
def test_a_sparse_file_hides_nothing_behind_it(sparse: bytes) -> None:
    before, behind = (packed({name: b"x" * 700}, tarfile.GNU_FORMAT) for name in ("a.jpg", "b.jpg"))
    data = before[:1536] + sparse + behind
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:  # the file is made as tarfile knows it
        assert [(m.name, m.issparse()) for m in archive] == [
            ("a.jpg", False), ("s.jpg", True), ("b.jpg", False)
        ]  # fmt: skip
    for split in range(0, len(data), 512):
        file = io.BytesIO(data)
        found = [*iter_members(file, 0, split), *iter_members(file, split)]
        assert [(member.name, member.kind) for member in found] == [
            ("a.jpg", "file"), ("s.jpg", "sparse file"), ("b.jpg", "file")
        ], split  # fmt: skip
    file.seek(found[2].offset)
    assert file.read(found[2].size) == b"x" * 700


@pytest.mark.parametrize("length", [520, 600, 1100])
def test_a_map_of_a_sparse_file_that_is_cut_off_is_damage(length: int) -> None:
    names, error = drain(iter_members(io.BytesIO(gnu_sparse(60)[:length])))
    assert names == []
    assert "cut off" in str(error)


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
}  # fmt: skip


@pytest.mark.parametrize("program", COMPRESSED)
@pytest.mark.parametrize("content", [bytes(10), random.Random(0).randbytes(5000)])
def test_a_compressed_tar_is_called_what_it_is(program: str, content: bytes) -> None:
    data = COMPRESSED[program](packed({"a.jpg": content}))
    names, error = drain(iter_members(io.BytesIO(data)))
    assert names == []
    assert str(error).endswith(f": it is compressed by {program}; decompress it")


def test_a_member_with_the_name_of_a_magic_is_read() -> None:
    assert [m.name for m in iter_members(io.BytesIO(packed({"BZh.jpg": b"a"})))] == ["BZh.jpg"]


TYPES = {
    tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "pipe",
    tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link", tarfile.CONTTYPE: "file",
    b"V": "label of a volume", b"M": "part of a file of another volume", b"Z": "tar member of type Z",
}  # fmt: skip


@pytest.mark.parametrize("type_", TYPES)
def test_a_member_of_every_type_is_found(type_: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "x.jpg", b"", type=type_)
        add(archive, "a.jpg", b"a")
    kinds = [(m.name, m.kind) for m in iter_members(io.BytesIO(file.getvalue()))]
    assert kinds == [("x.jpg", TYPES[type_]), ("a.jpg", "file")]


def test_a_global_header_is_no_member() -> None:
    file = io.BytesIO()
    headers = {"comment": "x"}
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers
    ) as archive:
        add(archive, "a.jpg", b"a")
    assert [m.name for m in iter_members(io.BytesIO(file.getvalue()))] == ["a.jpg"]


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
