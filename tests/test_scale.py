"""The tables of docs/scale.md say what the formulas give."""

import pytest

from benchmarks.sizing import HEADER, Options, row, size
from tests.cluster.files import PROJECT

SIZES = ((1e6, 1), (1e8, 24), (1e10, 720))


@pytest.mark.parametrize(("images", "hours"), SIZES)
def test_tables(images: float, hours: float) -> None:
    lines = (PROJECT / "docs" / "scale.md").read_text("utf-8").splitlines()
    assert lines.count(HEADER) == 2
    assert row(Options(images=images, hours=hours)) in lines
    assert row(Options(images, hours, cpu_ms=25, gpu_ms=2.5, images_per_get=100)) in lines


def test_formulas() -> None:
    """By hand: 36 million images in 10 hours are 1,000 a second; a CPU does 40."""
    found = size(Options(images=36e6, hours=10, cpu_ms=25, gpu_ms=2, cpu_node_cpus=10))
    assert found.cpu_nodes == 4  # 1,250 a second, at 400 each
    assert found.gpu_nodes == 2  # 500 each
    assert found.images_per_second == 1000
    assert found.hours == pytest.approx(10)
    assert found.machine_dollars == pytest.approx(10 * (4 * 0.30 + 2 * 1.00))
    assert found.puts == pytest.approx(36e6 / 512 + 36e6 / 1000 + 36_000)
    assert found.node_gbit == pytest.approx(250 * 200e3 * 8 / 1e9)
