"""Compiled kernels outlive pods and containers: one place in the image, the pods and the launchers."""

import re

import pytest

from tests.cluster.files import LAUNCHERS, PROJECT, RAY_JOBS, load


@pytest.fixture(scope="module")
def place() -> str:
    text = (PROJECT / "cluster/Dockerfile").read_text("utf-8")
    gpu = text[text.index(" AS gpu") : text.index("FROM ${VARIANT}")]
    found = re.search(r"CUDA_CACHE_PATH=(\S+)", gpu)
    assert found
    assert f"chown labels {found[1]}" in gpu
    assert "CUDA_CACHE_MAXSIZE=4294967296" in gpu
    return found[1]


@pytest.mark.parametrize("name", RAY_JOBS)
def test_pods_with_a_gpu_mount_the_claim(name: str, place: str) -> None:
    claim = load("cluster/kuberay/cuda-cache.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in load(name)["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", ())}
        if "nvidia.com/gpu" in container["resources"]["limits"]:
            (volume,) = pod["volumes"]
            assert mounted == {place: volume["name"]}
            assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        else:
            assert mounted == {}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_containers_mount_a_volume(name: str, place: str) -> None:
    (volume,) = (o for o in load(name)["docker"]["run_options"] if o.startswith("--volume"))
    assert volume.endswith(f":{place}")
