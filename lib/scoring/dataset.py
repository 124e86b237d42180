"""Labels of the images in a Ray Dataset."""

import sys
from pathlib import Path

import ray
import ray.data

from lib.common.errors import UserError
from lib.faces.registry import DEFAULT_DETECTOR, DetectorName, DetectorSpec
from lib.images import Limits
from lib.models.bundle import DEFAULT_MODEL, PrecisionChoice, read_bundle
from lib.scoring import engine, pipeline
from lib.scoring.labelling import Labelling, OneProcess
from lib.scoring.placement import Cluster, Placement
from lib.scoring.schema import label_schema
from lib.scoring.stages.read_images import Reader, ReadImages, UnpackRow
from lib.storage.folder import folder
from lib.storage.options import StorageOptions
from lib.tasks.under_age import ADULT_AGE, check_threshold

OTHERS_CPUS = 1.0
"""CPUs that the pools leave to the other operators of the user's dataset, which take a whole one each."""


def label_dataset(
    dataset: ray.data.Dataset,
    image: str,
    model: str | Path = DEFAULT_MODEL,
    detector: DetectorName = DEFAULT_DETECTOR,
    precision: PrecisionChoice = "auto",
    age_distribution: bool = False,
    threshold: int = ADULT_AGE,
    mirror: bool = False,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    storage: StorageOptions = StorageOptions(),  # noqa: B008
) -> ray.data.Dataset:
    """Add the label columns of `lib.scoring.schema` to a dataset of images.

    Nothing is computed before the result is read. It streams through pools of workers that fit the
    cluster. An image that cannot be read never fails the dataset: it has a status and an error.

    Paths and encoded bytes keep what arrays have lost: `ray.data.read_images` does not turn photographs
    upright by their EXIF orientation. Of a folder, it and `read_binary_files` pass over all names that
    begin with `_` or `.` without a word.

    Args:
        dataset: the user's.
        image: column that holds the images: encoded bytes, paths, URIs, uint8 arrays (height, width, 3)
            in RGB, or structs of `bytes` and `path`.
        model: bundle folder of the model, or s3:// prefix of one; every machine must see it.
        detector: finds the faces; "none": the images are face crops.
        precision: what the networks compute in; "auto": float32 on CPUs, and on GPUs half precision
            where the ages stay within 0.05 years of float32's on average.
        age_distribution: add the distribution of each age, too: 101 numbers.
        threshold: age in years: the column `p_under_AGE` is the probability to be younger.
        mirror: label by the mean over each face and its mirror image.
        limits: what is not decoded.
        storage: how files are reached.

    Returns:
        The same rows with the label columns behind the user's.

    Raises:
        UserError: the column is missing, a column has the name of a label column, the threshold is
            impossible, or the model or the detector cannot be used.
    """
    check_threshold(threshold)
    columns = dataset.columns() or []
    if image not in columns:
        raise UserError(f"the dataset has no column {image!r}; it has {', '.join(columns)}")
    labels = label_schema(age_distribution, keys=False, threshold=threshold).names
    if taken := sorted(set(columns) & set(labels)):
        raise UserError(f"the dataset has a column {taken[0]!r}, as the labels have; rename it")
    bundle = read_bundle(folder(str(model), storage))
    bundle.check_precision(precision)
    labelling = Labelling(
        source=ReadImages(image, Reader(limits, storage)),
        detector=DetectorSpec(detector),
        limits=limits.with_raw_pixels(),
        bundle=bundle,
        age_distribution=age_distribution,
        precision=precision,
        keys=("row",),
        finish=(UnpackRow(),),
        threshold=threshold,
        mirror=mirror,
    )
    placement = Placement(reserved_cpus=OTHERS_CPUS)
    pools = labelling.pools(
        placement, Cluster.of(ray.cluster_resources(), machines=engine.machines())
    )
    return pipeline.label(dataset, labelling, pools, SaidByRay())


class SaidByRay(OneProcess):
    """That of workers which no job has started: Ray shows the user what they write, once."""

    def say(self, line: str) -> None:
        """See `lib.scoring.labelling.State`."""
        sys.stderr.write(f"{line}\n")
