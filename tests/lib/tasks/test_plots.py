from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_curve

from lib.tasks import plots
from lib.tasks.expectation import distribution_sums, mean_distributions

NAN = float("nan")


def ages(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true_age = rng.integers(0, 101, count).astype(np.float64)
    age = true_age + rng.normal(0, 5, count)
    age[::7] = NAN
    return true_age, age


def genders(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    is_female = rng.random(count) < 0.5
    return is_female, np.clip(rng.normal(0.3 + 0.4 * is_female, 0.2), 0, 1)


def separation(count: int) -> np.ndarray:
    true_age, _ = ages(count)
    return mean_distributions(
        distribution_sums(np.eye(101, dtype=np.float32)[true_age.astype(int)], true_age.astype(int))
    )


FIGURES: dict[str, Callable[[int], Figure]] = {
    "true against predicted": lambda count: plots.true_against_predicted(*ages(count)),
    "error by age band": lambda count: plots.error_by_age_band(*ages(count)),
    "roc": lambda count: plots.gender_roc(*genders(count)),
    "reliability": lambda count: plots.gender_reliability(*genders(count)),
    "class separation": lambda count: plots.class_separation(separation(count)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [0, 300])
@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_figure_is_saved(draw: Callable[[int], Figure], count: int, tmp_path: Path) -> None:
    png, svg = plots.save(draw(count), tmp_path / "plots", "figure")
    with Image.open(png) as image:
        assert image.size == (1050, 900)
        assert len(np.unique(np.asarray(image))) > 20
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_what_is_known_is_counted() -> None:
    figure = plots.true_against_predicted(
        np.array([30.0, 30, 50, NAN]), np.array([41.0, 41, NAN, 9])
    )
    counts = figure.axes[0].collections[0].get_array()
    assert counts is not None
    assert counts.sum() == 2
    assert np.unravel_index(counts.argmax(), counts.shape) == (20, 15)  # rows go up


def test_bands_say_how_many_faces_they_have() -> None:
    figure = plots.error_by_age_band(np.array([1.0, 1, 75]), np.array([1.0, 2, 70]))
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert (labels[0], labels[1], labels[-1]) == ("0-2\nn = 2", "3-9\nn = 0", "70+\nn = 1")


def test_roc_is_the_curve_of_the_metrics() -> None:
    faces = genders(300)
    drawn = plots.gender_roc(*faces).axes[0].lines[1]
    false_positives, true_positives, _ = roc_curve(*faces, drop_intermediate=False)
    np.testing.assert_array_equal(drawn.get_xdata(), false_positives)
    np.testing.assert_array_equal(drawn.get_ydata(), true_positives)


def test_rows_of_the_heat_map_are_true_ages() -> None:
    distributions = np.full((101, 101), NAN)
    distributions[20] = np.eye(101)[25]
    drawn = plots.class_separation(distributions).axes[0].images[0]
    cells = np.ma.masked_array(drawn.get_array())
    assert cells[20, 25] == 1
    assert np.ma.getmaskarray(cells)[21].all()
    assert drawn.origin == "lower"
