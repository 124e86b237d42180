"""A picture with the labels of its faces drawn on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lib.images import Picture
from lib.report.colours import LIGHT
from lib.report.doubts import UNCERTAIN
from lib.scoring.schema import CERTAIN
from lib.tasks import TASKS
from lib.tasks.gender import FEMALE, GENDER, MALE

LARGEST_ENLARGEMENT = 3
"""Small pictures are enlarged at most so many times, to give room for the words."""

_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_BOX_COLOURS = {FEMALE: LIGHT.female, MALE: LIGHT.male, None: LIGHT.accent}
_PADDING = 0.3  # of the height of the letters
_SMALLEST_WORDS = 8  # pixels
_WORDS_ACROSS = 12.5  # a label is that many times as long as its letters are high

Rectangle = tuple[float, float, float, float]


def face_label(face: Mapping[str, Any]) -> str:
    """A label in words: `48 ± 6 · male 0.98`; only the tasks that the model knows.

    Of an uncertain face `48 ± 6 · uncertain`: its gender would be taken for one.
    """
    words = {name: task.words(face) for name, task in TASKS.items()}
    if is_uncertain(face):
        words[GENDER.name] = UNCERTAIN
    return " · ".join(filter(None, words.values()))


def is_uncertain(face: Mapping[str, Any]) -> bool:
    """Whether the model's card has a rule, and a face is uncertain by it."""
    return face.get(CERTAIN) is False


def annotate(
    picture: Picture, faces: Sequence[Mapping[str, Any]], fit: tuple[int, int], words: int
) -> Image.Image:
    """Draw boxes and labels on a copy of a picture.

    The box of an uncertain face is dashed. A face whose label finds no room beside those of larger faces
    has its box alone.

    Args:
        picture: upright.
        faces: of the label row, largest first; their boxes are in pixels of the full size.
        fit: width and height that the result fits into.
        words: height of the letters in pixels of the result; less where it is too narrow for them.

    Returns:
        RGB, in the picture's proportions.
    """
    full = Image.fromarray(picture.pixels)
    factor = min(fit[0] / full.width, fit[1] / full.height, LARGEST_ENLARGEMENT)
    size = max(1, round(full.width * factor)), max(1, round(full.height * factor))
    image = full.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(_FONT, max(_SMALLEST_WORDS, min(words, size[0] / _WORDS_ACROSS)))
    line = max(2, round(max(size) / 140))
    taken: list[Rectangle] = []
    for face in faces:
        box = _box(picture, face["box"], factor)
        uncertain = is_uncertain(face)
        colour = _BOX_COLOURS[None if uncertain else face[GENDER.name]]
        if uncertain:
            _dashed(draw, box, colour, line)
        else:
            draw.rectangle(box, outline=colour, width=line)
        _write(draw, font, face_label(face), box, colour, size, taken)
    return image


def _dashed(draw: ImageDraw.ImageDraw, box: Rectangle, colour: str, width: int) -> None:
    """A box of dashes: as long as three times their width, and the gaps two thirds of that."""
    left, top, right, bottom = box
    dash, step = 3 * width, 5 * width
    for x in np.arange(left, right, step):
        end = min(x + dash, right)
        draw.rectangle((x, top, end, min(top + width, bottom)), fill=colour)
        draw.rectangle((x, max(bottom - width, top), end, bottom), fill=colour)
    for y in np.arange(top, bottom, step):
        end = min(y + dash, bottom)
        draw.rectangle((left, y, min(left + width, right), end), fill=colour)
        draw.rectangle((max(right - width, left), y, right, end), fill=colour)


def _box(picture: Picture, box: Mapping[str, int], factor: float) -> Rectangle:
    """The corners of a box in pixels of the result."""
    corners = np.array(
        [[box["x"], box["y"]], [box["x"] + box["width"], box["y"] + box["height"]]], np.float32
    )
    (left, top), (right, bottom) = picture.from_full(corners) * factor
    return float(left), float(top), float(max(left, right - 1)), float(max(top, bottom - 1))


def _write(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    text: str,
    box: Rectangle,
    colour: str,
    size: tuple[int, int],
    taken: list[Rectangle],
) -> None:
    """Write above the box, else below or inside it, where there is room."""
    padding = _PADDING * font.size
    width, height = draw.textlength(text, font) + 2 * padding, 1.2 * font.size + 2 * padding
    left = min(max(0.0, (box[0] + box[2] - width) / 2), size[0] - width)
    for top in (box[1] - height, box[3], box[1], box[3] - height):
        place = (left, top, left + width, top + height)
        inside = left >= 0 <= top and place[3] <= size[1]
        if inside and not any(_overlap(place, other) for other in taken):
            draw.rectangle(place, fill=colour)
            draw.text((left + padding, top + height / 2), text, "white", font, anchor="lm")
            taken.append(place)
            return


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
