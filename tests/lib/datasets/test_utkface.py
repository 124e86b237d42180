import tarfile
from collections import Counter
from pathlib import Path

import pytest

from lib.datasets.labels import COLUMNS
from lib.datasets.utkface import ChipName, parse_name, read_names


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("26_1_2_20300102030405006.jpg.chip.jpg", ChipName(26, 1, 2)),
        ("part/one/100_0_4_20300102030405006.jpg", ChipName(100, 0, 4)),
        ("61_1_20300102030405006.jpg.chip.jpg", ChipName(61, 1, None)),
        ("24_0_1_20300102030405006 .jpg.chip.jpg", ChipName(24, 0, 1)),
        ("55_0_0_20300102030405006jpg.chip.jpg", ChipName(55, 0, 0)),
        ("53__0_20300102030405006.jpg", ChipName(53, None, 0)),
        ("README.md", ChipName()),
        ("26_1_2_20300102030405006.txt", ChipName()),
        ("x26_1_2_20300102030405006.jpg", ChipName()),
    ],
)
def test_names(path: str, expected: ChipName) -> None:
    assert parse_name(path) == expected


def test_a_row_for_every_path() -> None:
    paths = ["26_1_2_20300102030405006.jpg", "61_0_20300102030405006.jpg", "notes.txt"]
    table = read_names(paths, first_row=7)
    assert table.schema == COLUMNS
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (paths[0], 26, "female", None, "2", "utkface", 7),
        (paths[1], 61, "male", None, None, "utkface", 8),
        (paths[2], None, None, None, None, "utkface", 9),
    ]


def test_nothing_in_nothing_out() -> None:
    assert read_names([]).schema == COLUMNS


@pytest.mark.data
def test_every_shared_chip_has_its_labels(shared_data: Path) -> None:
    paths = []
    for shard in sorted((shared_data / "utkface").glob("*.tar")):
        with tarfile.open(shard) as tar:
            paths += tar.getnames()
    table = read_names(paths)
    assert table.num_rows == 19_350
    assert table["age"].null_count == table["gender"].null_count == 0
    assert table["group"].null_count == 3
    assert set(Counter(table["gender"].to_pylist())) == {"female", "male"}
