"""Jobs on a cluster of several machines, of which some are lost."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from ray.job_submission import JobStatus, JobSubmissionClient

from lib.common.demo import EXPECTED, make_demo
from lib.faces.registry import DetectorSpec
from lib.images import Limits
from lib.models.bundle import Bundle, read_bundle
from lib.output.counts import LabelCounts
from lib.scoring.stages.detect import Detect
from lib.scoring.stages.fetch import Fetch
from lib.scoring.stages.predict import Predict
from lib.scoring.stages.rows import Label
from lib.scoring.stages.stage import Chain
from lib.storage.folder import folder
from tests.cluster.files import PROJECT, RAY_JOBS, load
from tests.hosts import Host, hosts
from tests.jobs.test_train import BATCH as TRAIN_BATCH
from tests.jobs.test_train import STEPS, history
from tests.made_faces import make_faces
from tests.ray_head import Job, Machine, RayHead, command, ray_head, wait_until
from tests.s3_server import ENVIRONMENT, S3Server

# So many that machines can be lost while they are labelled, whatever the cores.
PICTURES, COPIES = 25, 30 * min(max(os.cpu_count() or 1, 2), 4)
IMAGES = PICTURES * COPIES


@dataclass
class Machines:
    """A head without work, two machines with CPUs alone and two with a logical GPU."""

    head: RayHead
    cpu: list[Machine]
    gpu: list[Machine]
    spare: list[Host]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    # A machine that has ended is missed after three seconds, one that is cut off after thirteen, and not
    # after minutes; one that is only slow is given time.
    config = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 300,
        "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 10,
        "agent_register_timeout_ms": 120_000,
        "grpc_client_keepalive_time_ms": 3000,
        "grpc_client_keepalive_timeout_ms": 5000,
    }
    with hosts(9) as (here, *others), ray_head(0, here.address, config=config) as head:
        cpu = [head.add(host, cpus=2) for host in others[:2]]
        gpu = [head.add(host, cpus=1, gpus=1) for host in others[2:4]]
        for machine in (*cpu, *gpu):
            wait_until(machine.is_up, 120)
        yield Machines(head, cpu, gpu, others[4:])


@pytest.fixture(scope="module")
def bundle(model: Path) -> Bundle:
    return read_bundle(model)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that take a while to decode, no two of the first ones alike."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for number in range(IMAGES):
        file = folder / f"{number:05}.png"
        if number < PICTURES:
            small = Image.fromarray(noise.integers(0, 256, (6, 6, 3), np.uint8))
            small.resize((700, 700), Image.Resampling.BICUBIC).save(file, compress_level=1)
        else:
            file.hardlink_to(folder / f"{number % PICTURES:05}.png")
    return folder


@pytest.fixture(scope="module")
def undisturbed(images: Path, bundle: Bundle) -> pd.DataFrame:
    """Labels as the same stages give them without a cluster."""
    chain = Chain(
        [
            Fetch(Limits.max_bytes),
            Detect(DetectorSpec("none"), bundle.crop, Limits(), threads=1),
            Predict(bundle, ("age", "gender"), threads=1),
            Label(bundle),
        ]
    )
    files = sorted(map(str, images.iterdir()))[:PICTURES]
    labels = chain(pa.table({"id": range(PICTURES), "uri": files})).to_pandas()
    return pd.concat([labels] * COPIES, ignore_index=True)


def rows(output: Path) -> int:
    return LabelCounts(output / "labels").update().total()


def submitted(head: RayHead, *more: object) -> tuple[JobStatus, str]:
    """Submit what ray_job.yaml submits, and follow its log to the end."""
    spec = load(RAY_JOBS[0])["spec"]
    token = head.environment["RAY_AUTH_TOKEN"]
    jobs = JobSubmissionClient(head.dashboard, headers={"Authorization": f"Bearer {token}"})
    job = jobs.submit_job(
        entrypoint=f"{spec['entrypoint']} {shlex.join(map(str, more))}",
        # On the cluster, the code is in the image.
        runtime_env={**yaml.safe_load(spec["runtimeEnvYAML"]), "working_dir": str(PROJECT)},
    )

    async def follow() -> str:
        return "".join([lines async for lines in jobs.tail_job_logs(job)])

    log = asyncio.run(asyncio.wait_for(follow(), 200))
    wait_until(lambda: jobs.get_job_status(job).is_terminal(), 30)
    return jobs.get_job_status(job), log


def test_the_job_of_kubernetes_submitted_here(s3: S3Server, tmp_path: Path) -> None:
    """Word for word, buckets included: only the server of these is another, as for other stores."""
    make_demo(str(tmp_path))
    s3.bucket("my-bucket")
    for file in tmp_path.iterdir():
        s3.put(f"s3://my-bucket/images/{file.name}", file.read_bytes())
    store = {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3.endpoint, "AWS_REGION": "us-east-1"}
    with ray_head(cpus=4, more=store, options=["--num-gpus=1"], dashboard=True) as head:
        status, log = submitted(head)
        assert status == JobStatus.SUCCEEDED, log
        assert f"{len(EXPECTED)} of {len(EXPECTED)} images (100%)" in log
        output = folder("s3://my-bucket/labels", s3.options)
        found = pa.concat_tables(
            [(output / "labels").read_table(name) for name in (output / "labels").files()]
        )
        names = [uri.removeprefix("s3://my-bucket/images/") for uri in found["uri"].to_pylist()]
        assert dict(zip(names, found["status"].to_pylist(), strict=True)) == EXPECTED
        assert len(names) == len(EXPECTED)
        status, log = submitted(head, "--max-error-rate", 2)
        assert status == JobStatus.FAILED
        assert "error: --max-error-rate must be in 0..1, not 2.0" in log
        example = ["examples.label_ray_dataset", str(tmp_path), str(tmp_path / "rows")]
        dataset = subprocess.run(
            [sys.executable, "-m", *example],
            cwd=PROJECT,
            env=head.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "no GPU in a worker on one" in dataset.stdout + dataset.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pools", [2, 1])
def test_machines_are_lost_and_added_while_labelling(
    pools: int,
    machines: Machines,
    bundle: Bundle,
    images: Path,
    undisturbed: pd.DataFrame,
    tmp_path: Path,
) -> None:
    """Machines lost, added, and taken away with notice: nothing is missed.

    First most CPUs are on machines without a GPU; then there are only those with one, and one pool.
    """
    output = tmp_path / "out"
    gpus = list(machines.gpu)
    with Job(
        machines.head.environment, tmp_path / "log", "jobs.score",
        "--images", images, "--output", output, "--model", bundle.folder, "--detector", "none",
        *(("--models.actors", 2, "--models.gpus", 1) if pools == 2 else ()),
    ) as job:  # fmt: skip
        wait_until(lambda: all(gpu.runs("ray::MapWorker") for gpu in gpus), 120)
        wait_until(lambda: rows(output) > IMAGES * 0.05, 120)
        if pools == 2:
            machines.cpu[0].kill()
        else:
            next(p for p in gpus[1].processes() if command(p).startswith("ray::MapWorker")).kill()
        wait_until(lambda: rows(output) > IMAGES * 0.12, 150)
        gpus[0].lose()
        added = machines.head.add(machines.spare.pop(), cpus=1, gpus=1)
        machines.gpu[:] = [gpus[1], added]
        # Not for so many rows: what had piled up before the models comes in one go once they are back.
        wait_until(added.is_up, 120)
        leaving = machines.cpu[1] if pools == 2 else gpus[1]
        leaving.drain(seconds=2)
        time.sleep(2)
        leaving.kill()
        assert rows(output) < IMAGES * 0.9
        wait_until(lambda: added.runs("ray::MapWorker") or job.process.poll() is not None, 100)
        assert job.finish(150) == 0, job.output
        assert job.output.count("pool ") == pools, job.output
    found = pd.read_parquet(output / "labels").sort_values("id").reset_index(drop=True)
    assert found["id"].tolist() == list(range(IMAGES))
    assert found["status"].tolist() == undisturbed["status"].tolist() == ["ok"] * IMAGES
    assert found["gender"].tolist() == undisturbed["gender"].tolist()
    for column in ("age", "age_std", "age_low", "age_high", "gender_score"):
        np.testing.assert_allclose(found[column], undisturbed[column], atol=1e-3)


@pytest.mark.timeout(600)
def test_machines_are_lost_while_training(machines: Machines, tmp_path: Path) -> None:
    """In the middle of an epoch: training goes on elsewhere, then with fewer, always by itself."""
    faces = make_faces(tmp_path / "faces", train=TRAIN_BATCH * STEPS + 3, val=27)
    output = tmp_path / "run"
    # The other machines are too small for these workers.
    large = [machines.head.add(machines.spare.pop(), cpus=3) for _ in range(3)]
    for machine in large:
        wait_until(machine.is_up, 120)

    def at_work() -> list[Machine]:
        return [machine for machine in large if machine.runs("ray::RayTrainWorker")]

    with Job(
        machines.head.environment, tmp_path / "log", "jobs.train", "--data", faces,
        "--output", output, "--workers", 2, "--min-workers", 1, "--cpus", 2.5, "--use-gpu", "no",
        "--batch-size", TRAIN_BATCH // 2, "--epochs", 1000, "--size", 32, "--plain",
        "--dropout", 0, "--checkpoint-steps", 3, "--pictures-after", 1000,
    ) as job:  # fmt: skip
        wait_for_an_epoch(job, output)
        for left in (2, 1):
            at_work()[0].kill()
            wait_for_an_epoch(job, output)  # which may have been over before
            wait_for_an_epoch(job, output)
            wait_until(lambda left=left: len(at_work()) == left, 150)  # type: ignore[misc]
        job.process.send_signal(signal.SIGINT)
        assert job.finish(60) == 130, job.output
    epochs = history(output)
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
    assert [epoch["step"] for epoch in epochs] == [STEPS * n for n in range(1, len(epochs) + 1)]


def wait_for_an_epoch(job: Job, output: Path) -> None:
    before = len(history(output))
    wait_until(lambda: len(history(output)) > before or job.process.poll() is not None, 150)
    assert job.process.poll() is None, job.output
