"""The RayJob files against the operator's own schema, its rules, and the rest of the project."""

import copy
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from jobs import score, train
from lib.common import options
from lib.scoring.placement import Growth
from tests.cluster.files import PROJECT, RAY_JOBS, load, pinned, tag

Json = dict[str, Any]


@pytest.fixture(scope="module")
def schema(shared_data: Path) -> Draft202012Validator:
    text = (shared_data / "kuberay" / "rayjob-v1.json").read_text("utf-8")
    return Draft202012Validator(closed(json.loads(text)))


def closed(schema: Any) -> Any:
    """The schema without room for unknown fields; what may be a number or a string may be both."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        result["type"] = ["integer", "string"]
    open_ = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_:
        result["additionalProperties"] = False
    return result


@pytest.mark.data
@pytest.mark.parametrize("name", RAY_JOBS)
def test_schema(name: str, schema: Draft202012Validator) -> None:
    assert [f"{error.json_path}: {error.message}" for error in schema.iter_errors(load(name))] == []


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backofLimit", 3),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplica", 3),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.autoscalerOptions.version", "v3"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.imagee", "x"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resources.limits.cpu", [1]),
    ],
)
def test_the_schema_finds_faults(path: str, value: object, schema: Draft202012Validator) -> None:
    job = load(RAY_JOBS[0])
    *parents, last = path.split(".")
    place: Any = job
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value
    assert list(schema.iter_errors(job))


def pod_specs(job: Json) -> Iterator[Json]:
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def refusals(job: Json) -> list[str]:
    """What the operator would say of a job that passes its schema."""
    spec, found = job["spec"], []
    if spec.get("ttlSecondsAfterFinished", 0) and not spec.get("shutdownAfterJobFinishes"):
        found.append("a TTL needs shutdownAfterJobFinishes")
    if spec.get("backoffLimit", 0) and "clusterSelector" in spec:
        found.append("backoffLimit excludes clusterSelector")
    if spec.get("submissionMode") == "SidecarMode" and "submitterPodTemplate" in spec:
        found.append("SidecarMode excludes a submitter template")
    version = spec["rayClusterSpec"].get("autoscalerOptions", {}).get("version")
    if version == "v2" and any(
        pod.get("restartPolicy", "Never") != "Never" for pod in pod_specs(job)
    ):
        found.append("autoscaler v2 needs restartPolicy Never")
    names = [group["groupName"] for group in spec["rayClusterSpec"]["workerGroupSpecs"]]
    if len(names) != len(set(names)):
        found.append("groups need names of their own")
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            found.append("replicas outside of minReplicas..maxReplicas")
    return found


@pytest.mark.parametrize("name", RAY_JOBS)
def test_the_operator_accepts_it(name: str) -> None:
    assert refusals(load(name)) == []


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        (lambda spec: spec.update(shutdownAfterJobFinishes=False), "TTL"),
        (lambda spec: spec.update(clusterSelector={"a": "b"}), "clusterSelector"),
        (
            lambda spec: spec.update(submissionMode="SidecarMode", submitterPodTemplate={}),
            "Sidecar",
        ),
        (
            lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"].update(
                restartPolicy="Always"
            ),
            "restartPolicy",
        ),
        (
            lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(minReplicas=1),
            "replicas",
        ),
    ],
)
def test_the_rules_find_faults(fault: Callable[[Json], None], refusal: str) -> None:
    job = copy.deepcopy(load(RAY_JOBS[0]))
    fault(job["spec"])
    assert [refusal in said for said in refusals(job)] == [True]


@pytest.mark.parametrize("name", RAY_JOBS)
def test_versions_images_and_places(name: str) -> None:
    job = load(name)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for pod in pod_specs(job):
        (container,) = pod["containers"]
        needed = container["resources"]
        assert needed["requests"] == needed["limits"]
        gpu = "nvidia.com/gpu" in needed["limits"]
        assert container["image"] == tag("gpu" if gpu else "cpu")
        assert pod["securityContext"]["runAsUser"] == 1000
        assert f"\nUSER {pod['securityContext']['runAsUser']}\n" in (
            PROJECT / "cluster/Dockerfile"
        ).read_text("utf-8")
        assert int(needed["limits"]["cpu"]) > 0
        names = {variable["name"] for variable in container["env"]}
        assert {f"RAY_grpc_client_keepalive_{what}_ms" for what in ("time", "timeout")} < names
    assert all(group["minReplicas"] == 0 for group in cluster["workerGroupSpecs"])


@pytest.mark.parametrize("name", RAY_JOBS)
def test_one_runtime_environment(name: str) -> None:
    assert yaml.safe_load(load(name)["spec"]["runtimeEnvYAML"]) == load("cluster/runtime_env.yaml")


@pytest.mark.parametrize("name", RAY_JOBS)
def test_secrets_by_reference_only(name: str) -> None:
    for pod in pod_specs(load(name)):
        for container in pod["containers"]:
            plain = {
                variable["name"] for variable in container.get("env", ()) if "value" in variable
            }
            assert not any(word in n for n in plain for word in ("KEY", "SECRET", "TOKEN", "PASS"))
            assert all("secretRef" in source for source in container["envFrom"])


def growth(job: Json) -> Growth:
    """CPUs and GPUs of all workers that there may be."""
    cpus = gpus = 0
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        cpus += group["maxReplicas"] * int(container["resources"]["limits"]["cpu"])
        gpus += group["maxReplicas"] * int(
            container["resources"]["limits"].get("nvidia.com/gpu", 0)
        )
    return Growth(cpus, gpus)


def test_the_jobs_take_these_options() -> None:
    """The entrypoints' options parse and fit the cluster."""
    label, learn = (shlex.split(load(name)["spec"]["entrypoint"]) for name in RAY_JOBS)
    assert label[:3] == ["python", "-m", "jobs.score"]
    labelling = options.parse(score.Options, label[3:])
    labelling.check()
    cpus = gpus = 0
    for group in load(RAY_JOBS[0])["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        cpus += group["maxReplicas"] * int(container["resources"]["limits"]["cpu"])
        gpus += group["maxReplicas"] * int(
            container["resources"]["limits"].get("nvidia.com/gpu", 0)
        )
    assert labelling.max_cluster == Growth(cpus, gpus)
    assert learn[:3] == ["python", "-m", "jobs.train"]
    told = options.parse(train.Options, learn[3:])
    told.check()
    assert told.max_cluster == growth(load(RAY_JOBS[1]))
    (group,) = load(RAY_JOBS[1])["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert told.workers == group["maxReplicas"]
    assert told.use_gpu == "yes"
    assert told.cpus is not None
    assert told.cpus < int(container["resources"]["limits"]["cpu"])
    assert all(place.startswith("s3://my-bucket/") for place in (told.data, told.output))
