"""What a predictor on a GPU chooses; the networks compute on the CPU here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from lib.common.gpus import Gpu
from lib.models.bundle import Bundle, Precision, read_bundle
from lib.models.gpu_predictor import (
    CLOSE_YEARS,
    LEAST_FACES,
    GpuPredictor,
    batch_sizes,
    choose,
    gap_in_years,
)
from lib.models.tensorflow_predictor import Predictions, TensorflowPredictor, parts

TASKS = ("age", "gender")
GIB = 2.0**30
H100 = Gpu("a card", int(80 * GIB), (9, 0))


@pytest.fixture(scope="module")
def bundle(model: Path) -> Bundle:
    return read_bundle(model)


def crops_of(bundle: Bundle, count: int) -> NDArray[np.uint8]:
    side = bundle.crop.size
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize(
    ("side", "gib", "sizes"),
    [
        (96, 80, (32, 128, 512)),
        (96, 16, (16, 64, 256)),
        (224, 80, (16, 64, 256)),
        (224, 8, (8, 32)),
        (224, 0.1, (8,)),
    ],
)
def test_batches_follow_memory_and_input(side: int, gib: float, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(side, gib * GIB) == sizes
    assert min(sizes) >= LEAST_FACES


@pytest.mark.parametrize(
    ("count", "calls"),
    [
        (0, []),
        (1, [8]),
        (9, [8, 8]),
        (17, [8, 8, 8]),
        (70, [32, 32, 8]),
        (100, [128]),
        (300, [128, 128, 32, 8, 8]),
    ],
)
def test_calls_of_few_sizes(count: int, calls: list[int]) -> None:
    cut = list(parts(count, (8, 32, 128)))
    assert [size for _, _, size in cut] == calls
    assert [n for start, end, _ in cut for n in range(start, end)] == list(range(count))
    assert all(end - start <= size for start, end, size in cut)


def test_filled_up_and_compiled_the_answers_are_the_same(bundle: Bundle) -> None:
    """And the network is traced once, whatever the numbers of faces."""
    plain, filled = (
        TensorflowPredictor(bundle, TASKS),
        TensorflowPredictor(bundle, TASKS, sizes=(4, 16)),
    )

    def compare() -> None:
        for count in (0, 3, 16, 23):
            crops = crops_of(bundle, count)
            found, expected = filled(crops), plain(crops)
            for task in TASKS:
                assert found[task].shape == expected[task].shape
                np.testing.assert_allclose(found[task], expected[task], atol=1e-5)

    compare()
    assert filled._forward.experimental_get_tracing_count() == 1
    filled.compile()
    assert list(filled._compiled) == [16]
    compare()


class Answers:
    """Stands in for a predictor whose ages are off by some years."""

    def __init__(self, years: float) -> None:
        self.years = years

    def __call__(self, crops: NDArray[np.uint8]) -> Predictions:
        ages = np.zeros((len(crops), 101), np.float32)
        ages[:, 40] = 1 - self.years
        ages[:, 41] = self.years
        return {"age": ages, "gender": np.full((len(crops), 2), 0.5, np.float32)}


def loads(off: dict[Precision, float]) -> Callable[[Precision], TensorflowPredictor]:
    return lambda precision: cast(TensorflowPredictor, Answers(off[precision]))


@pytest.mark.parametrize(
    ("float16", "bfloat16", "chosen"),
    [
        (0.01, 0.04, "float16"),
        (0.06, 0.04, "bfloat16"),
        (float("nan"), 0.04, "bfloat16"),
        (0.06, 0.2, "float32"),
    ],
)
def test_the_first_precision_that_is_close(
    float16: float, bfloat16: float, chosen: str, bundle: Bundle
) -> None:
    off: dict[Precision, float] = {"float16": float16, "bfloat16": bfloat16, "float32": 0.0}
    without_graph = replace(bundle, card=replace(bundle.card, inference=None))
    found = choose(without_graph, TASKS, loads(off))
    assert found.precision == chosen
    assert found.gap <= CLOSE_YEARS
    assert found.gap == pytest.approx(off[found.precision], abs=1e-5)


def test_genders_count_in_proportion() -> None:
    exact = {"age": (40.0, 30.0), "gender": (0.5, 0.5)}
    assert gap_in_years(exact, exact, TASKS) == 0
    found = {"age": (40.0, 30.0), "gender": (0.5, 0.52)}
    assert gap_in_years(found, exact, TASKS) == pytest.approx(0.01 / 2 * 101)
    assert gap_in_years(found, exact, ("age",)) == 0


def test_what_was_chosen_is_said_and_an_overflow_ends_half_precision(bundle: Bundle) -> None:
    said: list[str] = []
    predictor = GpuPredictor(bundle, TASKS, "auto", H100, 0.5, said.append)
    crops = crops_of(bundle, 5)
    exact = TensorflowPredictor(bundle, TASKS)(crops)
    assert "on a card in " in said[0]
    assert "float32's on the check crops" in said[0]
    predictor._precision = "float16"
    predictor._predictor = cast(TensorflowPredictor, Answers(float("nan")))
    for _ in range(2):
        for task, values in predictor(crops).items():
            np.testing.assert_allclose(values, exact[task], atol=1e-5)
    assert said[1:] == ["a face overflows in float16: float32 from now on"]


def test_old_cards_and_the_user_decide(bundle: Bundle) -> None:
    said: list[str] = []
    old = H100._replace(capability=(6, 1))
    assert GpuPredictor(bundle, TASKS, "auto", old, 1.0, said.append)._precision == "float32"
    asked = GpuPredictor(bundle, TASKS, "bfloat16", H100, 1.0, said.append)
    assert asked._precision == "bfloat16"
    assert said[1] == "the models compute on a card in bfloat16 (as asked)"


def test_the_answers_of_the_card_are_what_float32_says(bundle: Bundle) -> None:
    """Where the card has them, float32 is not loaded to compare with it."""
    assert bundle.card.inference is not None
    loaded: list[Precision] = []

    def load(precision: Precision) -> TensorflowPredictor:
        loaded.append(precision)
        return TensorflowPredictor(bundle, TASKS)  # exact, whatever it is asked for

    found = choose(bundle, TASKS, load)
    assert loaded == ["float16"]
    assert found.gap < 1e-3
