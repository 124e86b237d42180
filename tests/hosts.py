"""Hosts with networks of their own on one machine, where it allows that."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """An address; `within` comes before the commands that run there."""

    address: str
    within: Sequence[str] = ()
    cable: str | None = None

    def unplug(self) -> bool:
        """Cut it off from all others, without a word; False where it has no network of its own."""
        if self.cable is not None:
            _ip(f"link set {self.cable} down")
        return self.cable is not None


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """This machine, first, and others that it can reach.

    They are network namespaces at a bridge, for which one must be root; else addresses on loopback.
    """
    names = [f"lb{os.getpid()}n{number}" for number in range(count + 1)]
    net = f"10.213.{os.getpid() % 256}"
    try:
        try:
            _ip(f"link add {names[0]} type bridge")
            _ip(f"addr add {net}.1/24 dev {names[0]}")
            _ip(f"link set {names[0]} up")
            for number, name in enumerate(names[1:], start=2):
                _ip(f"netns add {name}")
                _ip(f"link add {name} type veth peer name eth0 netns {name}")
                _ip(f"link set {name} master {names[0]} up")
                _ip(f"-n {name} addr add {net}.{number}/24 dev eth0")
                _ip(f"-n {name} link set eth0 up")
                _ip(f"-n {name} link set lo up")
        except (OSError, subprocess.CalledProcessError):
            yield [Host(f"127.0.0.{number}") for number in range(1, count + 2)]
        else:
            yield [
                Host(f"{net}.1"),
                *(
                    Host(f"{net}.{number}", ("ip", "netns", "exec", name), name)
                    for number, name in enumerate(names[1:], start=2)
                ),
            ]
    finally:
        with suppress(OSError):
            for name in names[1:]:
                _ip(f"netns del {name}", check=False)
            _ip(f"link del {names[0]}", check=False)


def _ip(command: str, check: bool = True) -> None:
    subprocess.run(["ip", *command.split()], check=check, capture_output=True, timeout=30)
