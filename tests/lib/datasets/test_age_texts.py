import pytest

from lib.datasets.age_texts import read_ages


@pytest.mark.parametrize(
    ("text", "age", "low", "high"),
    [
        ("0-2", 1, 0, 2),
        ("20-29", 24, 20, 29),
        ("more than 70", 85, 70, 100),
        ("(25, 32)", 28, 25, 32),
        ("(8, 23)", 15, 8, 23),
        ("35", 35, 35, 35),
        (" 2 ", 2, 2, 2),
        ("None", None, None, None),
        ("", None, None, None),
        (None, None, None, None),
        ("(32, 25)", None, None, None),
        ("3-Sep", None, None, None),
    ],
)
def test_bands_and_numbers(
    text: str | None, age: int | None, low: int | None, high: int | None
) -> None:
    ages = read_ages([text])
    assert [column.to_pylist() for column in ages] == [[age], [low], [high]]
