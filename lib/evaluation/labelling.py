"""A model's labels of faces whose age and gender are known."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lib.common.progress import Progress
from lib.datasets.labelled_faces import IMAGE_COLUMNS, LabelledFaces, digest
from lib.evaluation.comparison import LABEL_COLUMNS, WELCOME_COLUMNS, Comparison
from lib.faces.registry import NO_DETECTOR, DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle
from lib.scoring import on_this_machine
from lib.scoring.labelling import Labelling
from lib.scoring.placement import Placement
from lib.scoring.rows import Rows
from lib.scoring.stages.labelled_faces import ReadLabelledFaces
from lib.scoring.stages.rows import model_id

log = logging.getLogger("evaluate")


def label_faces(
    bundle: Bundle,
    faces: LabelledFaces,
    detector: DetectorSpec = DetectorSpec(NO_DETECTOR),  # noqa: B008 - it is frozen
    placement: Placement = Placement(),  # noqa: B008
    mirror: bool = False,
) -> Comparison:
    """Label faces with a model, and put the truth beside the labels.

    Args:
        bundle: the model.
        faces: with at least one face.
        detector: finds the faces again; none: they are face crops.
        placement: what is wanted of the cluster's pools.
        mirror: label by the mean over each face and its mirror image.

    Raises:
        UserError: what stopped the run.
    """
    truth = faces.truth()
    log.info("%s faces to label", f"{len(truth):,}")
    rows = Rows(tuple(faces.files), faces.folder.filesystem, len(truth), IMAGE_COLUMNS)
    labelling = Labelling(
        ReadLabelledFaces(), detector, Limits(), bundle, age_distribution=True, mirror=mirror
    )
    tables = label_rows(rows, labelling, placement)
    labels = pa.concat_tables([t.select([*LABEL_COLUMNS, *WELCOME_COLUMNS]) for t in tables])
    places = pc.index_in(truth["sha256"], labels["uri"])
    if places.null_count:
        raise RuntimeError(f"{places.null_count} faces have come back without a label row")
    about = {
        "model": model_id(bundle),
        "data": str(faces.folder),
        "split": faces.split,
        "data_sha256": digest(truth["sha256"]),
        "detector": detector.digest(),
        "mirror": mirror,
    }
    return Comparison(truth, labels.take(places), about)


def label_rows(
    rows: Rows, labelling: Labelling, placement: Placement, remedy: str = "run it again"
) -> Iterator[pa.Table]:
    """Label rows on this machine or on a cluster, and show the progress.

    Args:
        rows: what the source of `labelling` takes.
        labelling: what is to be done.
        placement: what is wanted of the cluster's pools.
        remedy: what the user can do where the run stops.

    Yields:
        Label rows, in any order.

    Raises:
        UserError: what stopped the run.
    """
    if on_this_machine.suits(placement) or on_this_machine.are_few(rows.count, labelling):
        yield from _counted(on_this_machine.label_here(rows, labelling), rows.count)
        return
    # Ray takes seconds to import: an option that cannot work is refused long before.
    from lib.scoring.pipeline import labelled

    with labelled(rows, labelling, placement, remedy) as labels:
        tables = labels.rows.iter_batches(batch_size=None, batch_format="pyarrow")
        yield from _counted(tables, rows.count)


def _counted(tables: Iterable[Any], count: int) -> Iterator[pa.Table]:
    """The tables, with a line now and then that says how many of the rows there were."""
    counts: Counter[str] = Counter()
    # While a cluster runs, standard error is not the one of the start of the program.
    with Progress(count, counts.copy, sys.stderr):
        for table in tables:
            counts.update(table["status"].to_pylist())
            yield table
