"""Image files made by damaging good ones: cut, with flipped bytes, with the header of another file."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tests.image_variants import Variant, variants

COUNT = 300
_HEADER = 64


class Mutated(NamedTuple):
    """A damaged file.

    Attributes:
        name: tells the format, the variant and the damage.
        data: the encoded image.
        original: the file that it was made of.
    """

    name: str
    data: bytes
    original: Variant


def mutated(count: int = COUNT) -> Iterator[Mutated]:
    """The same files each time, of all formats alike; most damage goes to the header."""
    by_format: dict[str, list[Variant]] = {}
    for variant in variants():
        by_format.setdefault(variant.format, []).append(variant)
    formats = list(by_format.values())
    for number in range(count):
        chance = np.random.default_rng(number)
        of_format = formats[number % len(formats)]
        original = of_format[chance.integers(len(of_format))]
        others = formats[chance.integers(len(formats))]
        other = others[chance.integers(len(others))]
        damage = ("cut", "flipped", "swapped", "flipped")[number // len(formats) % 4]
        data = _damaged(original.data, other.data, damage, chance)
        yield Mutated(f"{number:03} {original.format} {original.name} {damage}", data, original)


def _damaged(data: bytes, other: bytes, damage: str, chance: np.random.Generator) -> bytes:
    match damage:
        case "cut":
            return data[: chance.integers(len(data))]
        case "flipped":
            values = np.frombuffer(data, np.uint8).copy()
            reach = len(data) if chance.random() < 0.7 else min(4 * _HEADER, len(data))
            places = chance.integers(0, reach, chance.integers(1, 5))
            values[places] ^= chance.integers(1, 256, len(places), np.uint8)
            return values.tobytes()
        case _:
            header = chance.integers(4, _HEADER)
            return other[:header] + data[header:]
