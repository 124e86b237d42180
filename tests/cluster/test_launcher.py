"""The files for `ray up` against the launcher's own checks and Amazon's own interface."""

import copy
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import validate_parameters
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.files import LAUNCHERS, PROJECT, load, pinned, tag


def prepared(name: str) -> dict[str, Any]:
    return prepare_config(copy.deepcopy(load(name)))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_launcher_accepts_it(name: str) -> None:
    config = prepared(name)
    validate_config(config)
    assert config["available_node_types"]["head"]["max_workers"] == 0
    sizes = [kind["max_workers"] for kind in config["available_node_types"].values()]
    assert sum(sizes) == config["max_workers"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_command_in_it_knows_what_may_be_started(name: str) -> None:
    """The head has no CPUs: without that the job would say that there is no room."""
    kinds = prepared(name)["available_node_types"].values()
    most = {
        what: sum(kind["max_workers"] * kind["resources"].get(what, 0) for kind in kinds)
        for what in ("CPU", "GPU")
    }
    command = f"--max-cluster.cpus {most['CPU']} --max-cluster.gpus {most['GPU']} "
    assert command in (PROJECT / name).read_text("utf-8")


def test_the_launcher_finds_faults() -> None:
    config = prepared(LAUNCHERS[0])
    config["available_node_types"]["cpu"]["max_worker"] = 3
    with pytest.raises(ValidationError):
        validate_config(config)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_nothing_of_the_launcher_s_own_is_installed(name: str) -> None:
    """Its defaults would install a nightly build of Ray wherever they find none."""
    config = prepared(name)
    for kind in ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray"):
        assert not any("nightly" in c or "wheels" in c for c in config[f"{kind}_commands"])
        assert not any("pip install" in c and "==" not in c for c in config[f"{kind}_commands"])
    assert config["setup_commands"] == config["worker_setup_commands"] == []


@pytest.mark.parametrize("name", LAUNCHERS)
def test_versions_roles_and_secrets(name: str) -> None:
    config = load(name)
    types = config["available_node_types"]
    assert config["docker"]["image"] == tag("cpu")
    assert types["gpu"]["docker"]["worker_image"] == tag("gpu")
    assert types["head"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["GPU"] == 1
    assert all(kind.get("min_workers", 0) == 0 for kind in types.values())
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert sum("keepalive" in option for option in config["docker"]["run_options"]) == 2
    text = (PROJECT / name).read_text("utf-8")
    assert "AKIA" not in text
    assert "private_key" not in text
    assert pinned("ray") in text
    dockerfile = (PROJECT / "cluster/Dockerfile").read_text("utf-8")
    (home,) = (
        line.split("=")[1] for line in dockerfile.splitlines() if line.startswith("ENV HOME=")
    )
    assert config["file_mounts"] == {f"{home}/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_amazon_accepts_the_machines() -> None:
    """Every field of every machine, against the description of EC2 that boto3 brings along."""
    run_instances = Session().get_service_model("ec2").operation_model("RunInstances")
    for kind in load("cluster/aws.yaml")["available_node_types"].values():
        request = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        validate_parameters(request, run_instances.input_shape)
        fields: dict[str, Any] = run_instances.input_shape.members
        assert request.keys() <= fields.keys()


def test_roles_exist() -> None:
    """The profiles that the machines ask for are those that the template makes."""
    text = (PROJECT / "cluster/aws-roles.yaml").read_text("utf-8")
    for kind in load("cluster/aws.yaml")["available_node_types"].values():
        profile = kind["node_config"]["IamInstanceProfile"]["Name"]
        assert f"InstanceProfileName: {profile}\n" in text
    assert f'ray-cluster-name": {load("cluster/aws.yaml")["cluster_name"]}' in text


def test_one_region() -> None:
    config = load("cluster/aws.yaml")
    assert f"--env AWS_REGION={config['provider']['region']}" in config["docker"]["run_options"]
