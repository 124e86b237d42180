"""What a worker on a GPU does otherwise than one on a CPU, computed on CPUs: the same rows."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.cbook import get_sample_data

from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, PrecisionChoice, read_bundle
from lib.scoring import on_this_machine
from lib.scoring.labelling import GPU_BATCH, GPU_BATCH_OF_CROPS, IN_FLIGHT, Labelling, Worker
from lib.scoring.placement import FACES, MODELS, Cluster, Placement, Pool
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.stage import BATCH, Stopwatch
from lib.scoring.worker_processes import NO_DEVICE, ROWS_UNTIL_GPUS
from tests.lib.scoring.test_on_this_machine import ROWS, Square, Work, rows_in
from tests.ray_head import wait_until

TASKS = ("age", "gender")
CPU = Pool(FACES, (FACES, *TASKS), 1, 1.0)
GPU = Pool(FACES, (FACES, *TASKS), 1, 0.8, 1.0, cores=2)


@pytest.fixture(scope="module")
def bundle(model: Path) -> Bundle:
    return read_bundle(model)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """A portrait in many sizes and shapes, one without a face, two files that are no images."""
    folder = tmp_path_factory.mktemp("images")
    path = str(get_sample_data("grace_hopper.jpg", asfileobj=False))
    portrait = np.asarray(cv2.imread(path))
    pictures = [cv2.resize(portrait, None, fx=f, fy=f) for f in (0.3, 0.7, 1.0, 2.0, 4.5)]
    pictures += [portrait[:, 100:400], portrait[100:, ::-1], np.hstack([portrait, portrait])]
    pictures.append(np.full((300, 500, 3), 90, np.uint8))
    files = []
    for number, picture in enumerate(pictures):
        files.append(str(folder / f"{number:02}.jpg"))
        cv2.imwrite(files[-1], picture)
    (folder / "text.jpg").write_text("no image")
    files += [str(folder / "text.jpg"), str(folder / "missing.jpg")]
    return pa.table({"id": range(len(files)), "uri": files})


def rows(
    bundle: Bundle, detector: str, pool: Pool, blocks: Sequence[pa.Table]
) -> list[dict[str, Any]]:
    """The rows of all blocks, of which a worker on a GPU has several in work, by their ids."""
    labelling = Labelling(
        Fetch(10**8), DetectorSpec(detector), Limits(), bundle, age_distribution=False
    )
    worker = Worker(labelling.stages(pool, last=True))
    with ThreadPoolExecutor(IN_FLIGHT if pool.gpus else 1) as threads:
        tables = list(threads.map(lambda block: pa.concat_tables(worker(block)), blocks))
    return pa.concat_tables(tables).sort_by("id").to_pylist()


@pytest.mark.parametrize("detector", ["yunet", "mtcnn", "none"])
def test_the_rows_are_those_of_a_cpu(detector: str, bundle: Bundle, manifest: pa.Table) -> None:
    blocks = [manifest.slice(start, 3) for start in range(0, len(manifest), 3)]
    expected = rows(bundle, detector, CPU, [manifest])
    found = rows(bundle, detector, GPU, blocks)
    assert len(expected) == len(found) == len(manifest)
    assert sum(len(row["faces"]) for row in expected) >= 9
    for row, other in zip(found, expected, strict=True):
        for name in ("id", "uri", "status", "error", "width", "height", "face_count"):
            assert row[name] == other[name]
        for face, same in zip(row["faces"], other["faces"], strict=True):
            assert face["gender"] == same["gender"]
            for name in ("age", "age_std", "gender_score"):
                assert face[name] == pytest.approx(same[name], abs=1e-3)
            assert face["box"] == same["box"]
            assert face["face_score"] == pytest.approx(same["face_score"], abs=1e-4)


def test_batches_follow_the_device(bundle: Bundle) -> None:
    crops, photographs = (
        Labelling(Fetch(10**8), DetectorSpec(name), Limits(), bundle, age_distribution=False)
        for name in ("none", "yunet")
    )
    assert crops.batch(CPU) == photographs.batch(CPU) == BATCH
    assert (crops.batch(GPU), photographs.batch(GPU)) == (GPU_BATCH_OF_CROPS, GPU_BATCH)
    assert photographs.batch(Pool(MODELS, TASKS, 1, 0.0, 0.5)) == GPU_BATCH_OF_CROPS


@dataclass
class SquaresOnGpus(Work):
    """Stands in for `Labelling` on a machine with GPUs."""

    def pools(self, wanted: Placement, cluster: Cluster, blocks: float) -> list[Pool]:
        assert cluster.gpus == 2
        return [Pool(FACES, (FACES,), 2, 0.8, 1.0, cores=1)]

    def batch(self, pool: Pool) -> int:
        return GPU_BATCH


def test_processes_on_gpus(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has several blocks in work; an image that ends every process costs no other its row."""
    monkeypatch.setattr(on_this_machine, "usable_gpus", lambda: (2, None))
    rows = rows_in(tmp_path)
    labelling = SquaresOnGpus(bundle, Square("killed always"))
    found = pa.concat_tables(on_this_machine.label_here(rows, cast(Labelling, labelling)))
    found = found.sort_by("id")
    assert found["square"].to_pylist() == [number * number for number in range(rows.count)]
    faults = {row["id"] for row in found.to_pylist() if row["fault"]}
    assert faults == {100}


@dataclass
class SquareOnSlowGpus(Square):
    """Processes on GPUs start when others have labelled; these wait for their first rows then."""

    def setup(self, watch: Stopwatch) -> None:
        super().setup(watch)
        self._on_gpu = os.environ["CUDA_VISIBLE_DEVICES"] != NO_DEVICE
        self._begun = False
        if self._on_gpu:
            wait_until(Path(self.once).exists, 60)

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._begun and not self._on_gpu:
            wait_until(Path(f"{self.once} on GPUs").exists, 60)
        self._begun = True
        Path(self.once).touch()
        device = pa.array([self._on_gpu] * len(batch))
        return super().__call__(batch).append_column("on_gpu", device)


def test_cpus_label_until_gpus_have_started(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_this_machine, "usable_gpus", lambda: (2, None))
    stage = SquareOnSlowGpus(once=str(tmp_path / "begun"))
    rows = rows_in(tmp_path, 4000, row_group_size=250)
    labelling = cast(Labelling, SquaresOnGpus(bundle, stage))
    tables = []
    for table in on_this_machine.label_here(rows, labelling):
        tables.append(table)
        if table["on_gpu"][0].as_py():
            Path(f"{stage.once} on GPUs").touch()
    found = pa.concat_tables(tables).sort_by("id")
    assert found["square"].to_pylist() == [number * number for number in range(rows.count)]
    on_cpus = found["on_gpu"].to_pylist().count(False)
    # Of each the first part, and the one that it was about when the first rows of a GPU came.
    most = 2 * len(os.sched_getaffinity(0)) * ROWS_UNTIL_GPUS
    assert ROWS_UNTIL_GPUS <= on_cpus <= most


def test_processes_on_cpus_leave_the_memory_to_those_on_gpus(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_this_machine, "usable_gpus", lambda: (2, None))
    monkeypatch.setattr(on_this_machine, "_memory", lambda: 2.9 * 2**30)  # two take a GiB each
    (tmp_path / "begun").touch()
    labelling = cast(Labelling, SquaresOnGpus(bundle, SquareOnSlowGpus(once=f"{tmp_path}/begun")))
    found = pa.concat_tables(on_this_machine.label_here(rows_in(tmp_path), labelling))
    assert found["on_gpu"].to_pylist() == [True] * ROWS


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_who_asks_for_half_precision_gets_nothing_else(
    precision: PrecisionChoice, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_this_machine, "usable_gpus", lambda: (2, None))
    (tmp_path / "begun").touch()
    stage = SquareOnSlowGpus(once=str(tmp_path / "begun"))
    labelling = cast(Labelling, SquaresOnGpus(bundle, stage, precision=precision))
    found = pa.concat_tables(on_this_machine.label_here(rows_in(tmp_path), labelling))
    assert found["on_gpu"].to_pylist() == [True] * ROWS


def test_gpus_that_cannot_be_used_are_explained(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(on_this_machine, "usable_gpus", lambda: (0, "it is a toy"))
    labelling = cast(Labelling, Work(bundle, Square()))
    with caplog.at_level("INFO"):
        assert (
            len(pa.concat_tables(on_this_machine.label_here(rows_in(tmp_path, 5), labelling))) == 5
        )
    assert "there is a GPU, but it is a toy: labelling on CPUs" in caplog.text


def test_blocks_of_one_table_are_read_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "images.parquet"
    images = [f"image {number}".encode() for number in range(600)]
    pq.write_table(pa.table({"image": images}), file, row_group_size=100)
    places = pa.table(
        {
            "uri": [f"{file}#{number}" for number in range(600)],
            "container": [str(file)] * 600,
            "offset": range(600),
        }
    )
    fetch = Fetch(10**6).for_one_of(workers=1, threads=3)
    fetch.setup(Stopwatch())
    blocks = [places.slice(start, 20) for start in range(0, 600, 20)]
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        found = pa.concat_tables(threads.map(fetch, blocks))
    assert found["data"].to_pylist() == images
    assert 1 <= len(fetch._tables) <= IN_FLIGHT
