"""Training on Ray Train: the workers and their checkpoints.

Importing this imports Ray, which takes seconds; jobs do so when their options have been checked.
"""

import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import ray.train
import ray.train.collective
from numpy.typing import NDArray
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from lib.common.errors import UserError
from lib.common.gpus import memory_is_full
from lib.datasets.labels import Split
from lib.models.backbones.registry import BACKBONES, BackboneName
from lib.models.bundle import Bundle
from lib.scoring.engine import beside_the_job
from lib.storage.folder import Folder
from lib.training.checkpoint import FACTS, Position, read_checkpoint, write_checkpoint
from lib.training.history import History
from lib.training.recipe import Recipe
from lib.training.run_progress import (
    REPORT_EVERY_SECONDS,
    ProgressActor,
    ProgressReader,
    StepRate,
)
from lib.training.signals import watched_signals
from lib.training.tensorflow_cluster import TensorflowCluster

if TYPE_CHECKING:
    from lib.training.decoding_pool import DecodingPool

# A worker that has reported a checkpoint trains on when Ray Train has asked for it. By default it asks
# every two seconds, in which a small epoch is over.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")

CHECKPOINTS, BEST = "checkpoints", "best"
SPLITS: tuple[Split, ...] = ("train", "val")
NO_MEMORY = (
    "there is no memory left for a step: lower --batch-size, or stop what else uses the GPUs"
)


@dataclass(frozen=True)
class Plan:
    """What every worker must know.

    Attributes:
        data: folder of labelled faces.
        output: folder of the run.
        backbone: which one.
        weights: file that it starts from.
        teachers: models whose answers are learnt, too.
        face_weights: of a split float32 (n,): how much each face counts; one of 0 takes no part. Splits
            that are missing count as they are.
        recipe: how to train, with nothing left to the backbone.
        checkpoint_steps: steps between two checkpoints in an epoch; 0: none in an epoch.
        pictures_after: epochs after which class separation is drawn, besides the last one.
        workers: processes that train together; while some are lost, the others share their part.
    """

    data: Folder
    output: Folder
    backbone: BackboneName
    weights: Path | None
    teachers: tuple[Bundle, ...]
    face_weights: Mapping[Split, NDArray[np.float32]]
    recipe: Recipe
    checkpoint_steps: int
    pictures_after: tuple[int, ...]
    workers: int


def run(
    plan: Plan,
    least_workers: int | None,
    cpus: float,
    use_gpu: bool,
    keep: int,
    max_failures: int,
    history: History,
) -> Checkpoint:
    """Train until the last epoch, from the last checkpoint if there is one.

    Returns:
        The weights of the epoch with the lowest validation error.

    Raises:
        UserError: a worker cannot go on, for the reason in the message.
    """
    actor_class: Any = ProgressActor
    actor = actor_class.options(**beside_the_job()).remote()
    actor.begin.remote("starting workers")
    trainer = DataParallelTrainer(
        work,
        backend_config=TensorflowCluster(),
        train_loop_config={
            "plan": plan,
            "actor": actor,
            "threads": max(1, round(cpus)),
            "use_gpu": use_gpu,
        },
        scaling_config=ScalingConfig(
            # mypy sees the class of Ray Train's first version, without elasticity.
            num_workers=(least_workers, plan.workers) if least_workers else plan.workers,  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if use_gpu else {}),
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=plan.output.path,
            storage_filesystem=plan.output.filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=keep),
        ),
    )
    interrupt = signal.getsignal(signal.SIGINT)
    with ProgressReader(actor, history), watched_signals() as arrived:
        try:
            trainer.fit()
            # Of a run that is just over, Ray Train forgets it.
            if signal.SIGINT in arrived():
                raise KeyboardInterrupt
        except Exception:
            if reason := ray.get(actor.reason.remote()):
                raise UserError(reason) from None
            raise
        except SystemExit:  # what Ray Train makes of Ctrl-C
            raise KeyboardInterrupt from None
        finally:
            signal.signal(signal.SIGINT, interrupt)  # Ray Train has taken it for itself
    best = plan.output / BEST
    if not best.holds(FACTS):
        raise UserError("the training diverged: it has no finite error; lower --learning-rate")
    return Checkpoint(best.path, best.filesystem)


def work(config: dict[str, Any]) -> None:
    """The function that Ray Train runs in each worker."""
    from lib.training.decoding_pool import open_pool

    actor = config["actor"]
    try:
        # The reason why one worker failed holds for all others.
        if reason := ray.get(actor.reason.remote()):
            raise UserError(reason)
        # Where it has processes, they start while this one imports TensorFlow.
        with closing(open_pool(config["threads"])) as pool:
            _train(config["plan"], actor, config["threads"], config["use_gpu"], pool)
    except UserError as error:
        ray.get(actor.fail.remote(str(error)))
        raise
    except Exception as error:
        if memory_is_full(error):
            ray.get(actor.fail.remote(NO_MEMORY))
        raise


def _train(plan: Plan, actor: Any, threads: int, use_gpu: bool, pool: "DecodingPool") -> None:
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()

    def begin(phase: str) -> None:
        if rank == 0:
            actor.begin.remote(phase)

    begin("importing")
    if use_gpu:
        # cuDNN compiles kernels in the first step. CUDA keeps them under a key that depends on the
        # working directory, of which Ray gives each run another one.
        os.chdir("/")
    from lib.common import tensorflow_settings as runtime  # it quiets TensorFlow; isort: skip
    import tensorflow as tf

    from lib.datasets.labelled_faces import LabelledFaces
    from lib.training.faces import open_faces, read_labels
    from lib.training.loop import Trainer
    from lib.training.networks import build_networks

    runtime.configure(threads)
    if use_gpu and not tf.config.list_physical_devices("GPU"):
        actor.warn.remote(
            f"a worker on {socket.gethostname()} was given a GPU, and TensorFlow finds none: "
            "it trains on its CPUs; install NVIDIA's driver and `tensorflow[and-cuda]` there"
        )
    # Gradients are exchanged by NCCL between GPUs, else by gRPC.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    # Fewer workers share the same batches, so steps and schedules stay what they are.
    size, batch = plan.recipe.size, plan.recipe.batch_size
    assert size is not None
    assert batch is not None
    recipe = replace(plan.recipe, batch_size=batch * plan.workers // workers)
    teachers = [bundle.here() for bundle in plan.teachers]
    largest = max([size, *(bundle.crop.size for bundle in teachers)])
    side = round(largest * 1.2)  # a fifth above the crop, for the zoom
    begin("copying faces")
    memory = memory_for_faces(context.get_local_world_size())
    splits = {}
    for split in SPLITS:
        faces = LabelledFaces(plan.data, split)
        labels = read_labels(faces, recipe.tasks)
        splits[split] = open_faces(faces, labels, side, cache_folder(), pool, memory)
        memory -= splits[split].decoder.kept_bytes
        if split in plan.face_weights:
            splits[split] = splits[split].weighted(plan.face_weights[split])
    ray.train.collective.barrier()
    trainer = Trainer(
        strategy,
        lambda: build_networks(
            plan.backbone,
            None if BACKBONES[plan.backbone].any_size else size,
            recipe.dropout,
            plan.weights,
            recipe.tasks,
        ),
        recipe, size, splits["train"], splits["val"], rank, workers,
        teachers, begin,
    )  # fmt: skip
    position = Position()
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            arrays, position = read_checkpoint(Path(folder))
        trainer.restore(arrays)
        position.losses = [loss / workers for loss in position.losses]
    _epochs(replace(plan, recipe=recipe), trainer, position, actor if rank == 0 else None, rank)


def _epochs(plan: Plan, trainer: Any, position: Any, actor: Any, rank: int) -> None:
    """Train epoch by epoch; all ranks make the same calls."""
    recipe = plan.recipe
    reported = 0.0
    step_rate = StepRate(trainer.batch)

    def report_progress(rate: float = 0.0) -> None:
        if actor is not None:
            actor.set_progress.remote(position.history, position.step, trainer.steps, rate)

    def after_step(now: Any) -> None:
        nonlocal reported
        so_far = step_rate(now.step)
        if actor is not None and time.monotonic() - reported >= REPORT_EVERY_SECONDS:
            reported = time.monotonic()
            report_progress(so_far)
        if (
            plan.checkpoint_steps
            and now.step % plan.checkpoint_steps == 0 < trainer.steps - now.step
        ):
            _report(trainer, now, rank)

    report_progress()
    while position.epoch < recipe.epochs and not _stale(position.history, recipe):
        started, step_rate = time.monotonic(), StepRate(trainer.batch)
        rate = trainer.train_epoch(position, after_step)
        losses = trainer.global_losses(position.losses)
        position.history.append(
            {
                "epoch": position.epoch + 1,
                "loss": sum(losses) / len(losses),
                **trainer.validate(trainer.size_in(position.epoch)),
                "workers_apart": trainer.workers_apart(),
                "images_per_second": rate,
                "seconds": time.monotonic() - started,
                "step": (position.epoch + 1) * trainer.steps,
            }
        )
        position.epoch, position.step, position.losses = position.epoch + 1, 0, []
        last = position.epoch == recipe.epochs or _stale(position.history, recipe)
        if actor is not None and (last or position.epoch in plan.pictures_after):
            for distributions in trainer.distributions.values():
                ray.get(actor.add_distributions.remote(position.epoch, distributions))
        if rank == 0 and _is_best(position.history, recipe):
            _keep(trainer, position, plan.output / BEST)
        _report(trainer, position, rank)
        report_progress(rate)


def _report(trainer: Any, position: Any, rank: int) -> None:
    """Write a checkpoint; every worker reports, and the first one's state is that of all."""
    position = replace(position, losses=trainer.global_losses(position.losses))
    arrays = trainer.arrays() if rank == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        if arrays is not None:
            write_checkpoint(Path(folder), arrays, position)
            ray.train.report({}, checkpoint=Checkpoint.from_directory(folder))
        else:
            ray.train.report({}, checkpoint=None)


def _keep(trainer: Any, position: Any, best: Folder) -> None:
    """Write the averaged weights, in place of those of the epoch that was the best before."""
    from lib.training.loop import AVERAGED

    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), {AVERAGED: trainer.averaged()}, position)
        best.upload(Path(folder), last=FACTS)


def _is_best(history: list[dict[str, Any]], recipe: Recipe) -> bool:
    """Whether the last epoch has the lowest validation error of those at the full size."""
    errors = _errors(history, recipe)
    *before, last = errors or [math.nan]
    return math.isfinite(last) and not any(error <= last for error in before)


def _stale(history: list[dict[str, Any]], recipe: Recipe) -> bool:
    """Whether `patience` epochs at the full size have not lowered the validation error."""
    patience = recipe.patience
    errors = _errors(history, recipe)
    if not patience or len(errors) <= patience:
        return False
    return min(errors[-patience:]) >= min(errors[:-patience])


def _errors(history: list[dict[str, Any]], recipe: Recipe) -> list[float]:
    """Validation errors of the epochs that count: those at the full size."""
    return [epoch["val_error"] for epoch in history[recipe.progressive_epochs :]]


def cache_folder() -> Path:
    """Where a machine keeps encoded faces: not shared between users, and gone with the machine."""
    return Path(tempfile.gettempdir(), f"faces-{os.getuid()}")


def memory_for_faces(workers: int) -> int:
    """Bytes that each of the workers of this machine may fill with decoded faces.

    Together half of what Ray has found free for all processes that it starts here.
    """
    here = ray.get_runtime_context().get_node_id()
    found = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return int(found.get("memory", 0.0) / 2 / workers)
