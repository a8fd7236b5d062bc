"""The private network goes away, comes back, and gives another address: the node follows by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import METRICS_PORT, PORTS, Mesh, Node, Subnet, marked
from tests.mesh.pairing import until
from tests.processes import held_by
from tests.sockets import table

pytestmark = [pytest.mark.mesh, pytest.mark.root]
_NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="making a network interface needs root")


class Interface:
    """An interface of our own: an address on it can be taken away, which one on loopback cannot."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        _ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        _ip("link", "set", name, "up")
        self.give(address)

    def give(self, address: str) -> None:
        self.address = address
        _ip("addr", "add", f"{address}/32", "dev", self.name)

    def take(self) -> None:
        _ip("addr", "del", f"{self.address}/32", "dev", self.name)

    def remove(self) -> None:
        _ip("link", "del", self.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def interface(subnet: Subnet) -> Iterator[Interface]:
    number = subnet.prefix.rpartition(".")[2]
    try:
        made = Interface(f"mesh{os.getpid() % 100000}", f"10.231.{number}.1")
    except (subprocess.CalledProcessError, FileNotFoundError) as exc:
        pytest.skip(f"an interface cannot be made here: {exc}")
    yield made
    made.remove()


def _listeners(node: Node) -> set[tuple[str, int]]:
    """Where the node and all that it started listen at this moment."""
    assert node.process is not None
    own = set[int]().union(*(held_by(pid) for pid in (node.process.pid, *marked(node.state))))
    listening = table(connected=False)
    return {(s.address, s.port) for s in map(listening.__getitem__, own & listening.inodes()) if s.listening}


@_NEEDS_ROOT
@pytest.mark.timeout(180)
def test_services_go_with_the_address_and_come_back_with_it_or_with_another(
    interface: Interface, make_node: MakeNode, subnet: Subnet
) -> None:
    metrics = subnet.address()
    attic = make_node("attic", address=interface.address, interface=interface.name, metrics=metrics)
    barn = make_node("barn")
    Mesh([attic, barn]).build()

    interface.take()
    until(lambda: _listeners(attic) == {(metrics, METRICS_PORT)}, "it listens nowhere but for metrics")
    until(lambda: not marked(attic.state), "its services are gone")
    until(lambda: "overlay-down" in attic.conditions(), "it says so")
    assert interface.name in attic.do("status").out
    assert attic.api("GET", "/readyz").status == 503
    until(lambda: not barn.peers()["attic"]["reachable"], "the other one sees it away", 40)

    interface.give(interface.address)
    _serves(attic, barn, interface.address, metrics)

    interface.take()
    another = interface.address[:-1] + "77"
    cluster = barn.pid_of("cluster")
    until(lambda: not marked(attic.state), "its services are gone")
    attic.address = another
    interface.give(another)
    _serves(attic, barn, another, metrics)
    until(lambda: barn.peers()["attic"]["address"] == another, "the roster tells the other one")
    assert barn.pid_of("cluster") == cluster, "one that moves restarts nothing on the others"
    entry = barn.do("pin", "-", "--name", "moved", "--json", stdin=b"moved").document()["entry"]
    assert {c["node"] for c in entry["copies"]} == {"attic", "barn"}
    assert barn.pid_of("cluster") == cluster
    for _ in range(3):  # an address that flaps
        interface.take()
        until(lambda: not marked(attic.state), "its services are gone")
        another = another[:-1] + ("8" if another.endswith("7") else "7")
        attic.address = another
        interface.give(another)
        until(lambda: barn.peers()["attic"]["address"] == attic.address, "the roster tells the other one")
    _serves(attic, barn, another, metrics)
    entry = barn.do("pin", "-", "--name", "flapped", "--json", stdin=b"flapped").document()["entry"]
    assert {c["node"] for c in entry["copies"]} == {"attic", "barn"}
    assert barn.pid_of("cluster") == cluster


def _serves(attic: Node, barn: Node, address: str, metrics: str) -> None:
    attic.wait_ready()
    wanted = {(address, port) for port in PORTS} | {(metrics, METRICS_PORT)}
    until(lambda: _listeners(attic) == wanted, f"it listens on {address}")
    until(lambda: barn.peers()["attic"]["reachable"], "the other one reaches it", 40)
    until(lambda: "overlay-down" not in attic.conditions(), "the condition is gone")
