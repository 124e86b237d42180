"""Tells the TensorFlow of every worker where the others are.

Ray's `TensorflowTrainer` does this, too, and its import imports TensorFlow into the driver, which takes
seconds there and is not needed; and it asks for Keras 2 in the workers.
"""

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

import ray
import ray.util
from ray.train.backend import Backend, BackendConfig


@dataclass
class TensorflowCluster(BackendConfig):
    """For `DataParallelTrainer`: workers of a `MultiWorkerMirroredStrategy`."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls when it has started workers."""
        return _Addresses


class _Addresses(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        addresses = worker_group.execute(_free_address)
        ray.get(
            [
                worker_group.execute_single_async(rank, _introduce, addresses, rank)
                for rank in range(len(addresses))
            ]
        )


def _free_address() -> str:
    """Of this worker, with a port that nobody uses now."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def _introduce(addresses: list[str], rank: int) -> None:
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    )
