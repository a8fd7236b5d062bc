"""Nothing that a node starts ever listens off the overlay, as the kernel tells it."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import METRICS_PORT, PORTS, Mesh, Node, marked
from tests.mesh.pairing import until
from tests.mesh.sampler import Sampler, wrong
from tests.sockets import Open

pytestmark = pytest.mark.mesh


def test_each_node_listens_on_its_three_ports_and_for_metrics_and_nowhere_else(
    mesh: Mesh, sampler: Sampler
) -> None:
    for node in mesh:
        ports = {(node.address, port) for port in PORTS} | {(node.metrics_address, METRICS_PORT)}
        until(
            lambda node=node, ports=ports: sampler.seen.get(repr(node)) == ports, f"all of {node}'s are seen"
        )
    assert sampler.samples > 20
    assert sampler.findings == []


def test_at_no_moment_from_the_first_start_on_is_there_any_other_socket(
    make_node: MakeNode, sampler: Sampler
) -> None:
    node = make_node("attic").start()
    before = sampler.samples
    node.do("init")
    node.do("pin", "-", "--name", "watched", stdin=b"watched")
    node.stop()
    assert sampler.samples > before + 10, "it was looked at all the while"
    assert sampler.findings == []


@pytest.fixture
def leaky(make_node: MakeNode) -> Iterator[Node]:
    """A node whose process does what no node may: a UDP socket, a listener on every address."""
    node = make_node("attic")
    program = (
        "import socket,sys\n"
        "u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(('127.0.0.1',0))\n"
        "l=socket.socket(); l.bind(('0.0.0.0',0)); l.listen(1)\n"
        "print('open',flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    node.process = process
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"open\n"
    yield node
    process.stdin.close()
    process.stdout.close()
    process.wait(20)


def test_the_sampler_sees_what_it_is_there_to_see(leaky: Node) -> None:
    sampler = Sampler(lambda: [leaky])
    sampler.look()
    assert any("udp 127.0.0.1" in line and "not TCP" in line for line in sampler.findings), sampler.findings
    assert any("0.0.0.0" in line and "listens where" in line for line in sampler.findings), sampler.findings


def test_the_sampler_sees_what_was_open_before_it_knew_the_node(leaky: Node) -> None:
    nodes: list[Node] = []
    sampler = Sampler(lambda: nodes)
    sampler.look()
    nodes.append(leaky)
    sampler.look()
    assert len(sampler.findings) == 2, sampler.findings


@pytest.mark.parametrize(
    ("kind", "address", "port", "listening", "remote", "allowed"),
    [
        ("tcp", "OWN", 4001, True, "", True),
        ("tcp", "OWN", 9096, True, "", True),
        ("tcp", "OWN", 4010, True, "", True),
        ("tcp", "OWN", 4011, True, "", True),
        ("tcp", "OWN", 5001, True, "", False),
        ("tcp", "127.0.0.1", 5001, True, "", False),
        ("tcp", "0.0.0.0", 4001, True, "", False),
        ("tcp", "::", 4001, True, "", False),
        ("tcp", "OWN", 50000, False, "192.0.2.1", False),
        ("tcp", "OWN", 50000, False, "127.0.0.9", True),
        ("udp", "OWN", 4001, False, "", False),
        ("raw", "OWN", 0, False, "", False),
    ],
)
def test_what_the_sampler_calls_wrong(
    mesh: Mesh, kind: str, address: str, port: int, listening: bool, remote: str, allowed: bool
) -> None:
    own = mesh[0].address
    found = Open(kind, own if address == "OWN" else address, port, listening, remote)
    assert (wrong(mesh[0], found, {own}) == "") is allowed


def test_what_is_private_on_disk_only_its_owner_can_read(mesh: Mesh) -> None:
    for node in mesh:
        for folder in (node.state, node.state / "secrets", node.run_folder / "private"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
        for file in ("node.key", "mesh.json", "kubo/swarm.key", "kubo/config", "cluster/service.json"):
            assert stat.S_IMODE((node.state / file).stat().st_mode) & 0o077 == 0, file


def test_no_secret_is_in_a_command_line_an_environment_or_the_log(mesh: Mesh) -> None:
    for node in mesh:
        secrets = [(node.state / "secrets" / "cluster.secret").read_text().strip()]
        secrets.append((node.state / "kubo" / "swarm.key").read_text().split()[-1])
        shown = node.log.read_text() + node.do("status", "--json").out
        for pid in marked(node.state):
            for what in ("cmdline", "environ"):
                shown += Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace")
        for secret in secrets:
            assert len(secret) == 64
            assert secret not in shown
