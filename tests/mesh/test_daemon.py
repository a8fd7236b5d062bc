"""One daemon, one folder, one address: what stands in the way is named."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.mesh.conftest import MakeNode
from tests.mesh.nodes import BIN, METRICS_PORT, Node, Subnet, marked, run
from tests.mesh.pairing import until

pytestmark = pytest.mark.mesh


def _run_daemon(node: Node) -> tuple[int, str]:
    """`meshd run` to its end, for one that is to end by itself; what it said to people."""
    answer = run([BIN / "meshd", "run", "--config", node.config], timeout=30)
    return answer.code, answer.err


def test_a_second_daemon_on_one_state_folder_is_refused(make_node: MakeNode) -> None:
    first, second = make_node("attic").start(), make_node("barn")
    second.config.write_text(second.config.read_text().replace(str(second.state), str(first.state)))
    code, said = _run_daemon(second)
    assert code == 1
    assert first.process is not None
    assert f"pid {first.process.pid}" in said
    assert "try: " in said
    assert first.api("GET", "/healthz").status == 200
    first.do("init")


@pytest.mark.parametrize(("port", "service"), [(4001, "kubo"), (9096, "cluster")])
def test_a_port_that_is_in_use_is_said_with_who_uses_it(make_node: MakeNode, port: int, service: str) -> None:
    node = make_node("attic").start()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as libp2p does it
        other.bind((node.address, port))
        other.listen(1)
        beginning = node.popen("init")
        try:
            until(lambda: f"pid {os.getpid()}" in node.service(service)["last_exit"], "who uses it is said")
            until(lambda: "service-down" in node.conditions(), "it is a condition")
            shown = node.conditions()["service-down"]
            assert str(port) in shown["cause"]
            assert f"pid {os.getpid()}" in node.do("status").out
            other.close()
            assert beginning.wait(60) == 0, "it goes on by itself once the port is free"
        finally:
            _end(beginning)
    assert node.ready()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(20)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def test_a_peer_port_that_is_in_use_is_said_with_who_uses_it(make_node: MakeNode) -> None:
    node = make_node("attic").start()
    with socket.socket() as other:
        other.bind((node.address, 4010))
        other.listen(1)
        beginning = node.popen("init")
        try:
            until(lambda: "peer-api-down" in node.conditions(), "it is said")
            shown = node.conditions()["peer-api-down"]
            assert "4010" in shown["title"] + shown["cause"]
            other.close()
            assert beginning.wait(60) == 0
        finally:
            _end(beginning)


def test_a_metrics_port_that_is_in_use_keeps_the_daemon_from_starting_and_is_said(
    make_node: MakeNode, subnet: Subnet
) -> None:
    node = make_node("attic")
    with socket.socket() as other:
        other.bind((node.address, METRICS_PORT))
        other.listen(1)
        code, said = _run_daemon(node)
    assert code == 1
    assert f"{node.address}:{METRICS_PORT}" in said
    assert "[metrics]" in said


def test_a_configuration_that_is_wrong_is_told_key_by_key(make_node: MakeNode) -> None:
    node = make_node("attic")
    node.config.write_text('[node]\nname = "bad name"\n[pins]\nreplicas = 0\ntrash = "soon"\nextra = 1\n')
    code, said = _run_daemon(node)
    assert code == 2
    for word in (str(node.config), "node.name", "pins.replicas", "pins.trash", "pins.extra"):
        assert word in said


def test_a_public_overlay_address_is_refused(make_node: MakeNode) -> None:
    node = make_node("attic", address="8.8.8.8", metrics="127.0.0.1")
    code, said = _run_daemon(node)
    assert code == 2
    assert "8.8.8.8" in said
    assert "not private" in said


def test_what_a_killed_daemon_was_writing_is_removed_at_the_next_start(make_node: MakeNode) -> None:
    """It may be half a secret, and nobody would ever look at it again."""
    node = make_node("attic")
    folder = node.state / "secrets"
    folder.mkdir(parents=True, mode=0o700)
    node.state.chmod(0o700)
    dead = 4194305  # over the highest process id that Linux gives out
    left = folder / f".swarm.key.{dead}.0123456789abcdef.tmp"
    left.write_text("half a k")
    node.start()
    assert not left.exists()


def test_after_an_orderly_stop_nothing_runs_and_no_socket_is_left(make_node: MakeNode) -> None:
    node = make_node("attic").start()
    node.do("init")
    assert len(marked(node.state)) == 2
    node.stop()
    assert marked(node.state) == []
    assert not node.socket.exists()
    assert node.meshctl("status").code == 3
    node.start().wait_ready()
    assert node.status()["mesh"]["name"] == "mesh"
